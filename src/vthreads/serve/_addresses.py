"""Addresses that a server listens on, in the notation of `--bind`: parse and print. This module opens no socket."""

from __future__ import annotations

import os
import re
import sys
from typing import NamedTuple

__all__ = ["Address", "FdAddress", "TcpAddress", "UnixAddress", "parse_address"]


class TcpAddress(NamedTuple):
    """A host and a port; port 0 means a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class UnixAddress(NamedTuple):
    """The path of a Unix socket."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


class FdAddress(NamedTuple):
    """The number of an inherited descriptor, which listens already."""

    fd: int

    def __str__(self) -> str:
        return f"fd://{self.fd}"


Address = TcpAddress | UnixAddress | FdAddress

# Bytes of the path of a Unix socket, without the NUL at its end.
LONGEST_PATH = 107 if sys.platform == "linux" else 103
HOST_AND_PORT = re.compile(r"(?:\[(?P<v6>[^\[\]]+)\]|(?P<host>[^:\[\]]*)):(?P<port>[0-9]{1,5})")


def parse_address(text: str) -> Address:
    """Return the address that `text` means: `host:port`, `[v6]:port`, `:port`, `unix:/path` or `fd://3`.

    Raises:
        ValueError: `text` is none of these.
    """
    if text.startswith("unix:") and len(text) > len("unix:"):
        return _unix_address(text)
    if text.startswith("fd://") and text.removeprefix("fd://").isdecimal():
        return FdAddress(int(text.removeprefix("fd://")))
    found = HOST_AND_PORT.fullmatch(text)
    if found is None or int(found["port"]) > 65535:
        raise ValueError(f"{text!r} is not an address; write host:port, [v6]:port, unix:/path or fd://3")
    host = found["v6"] or found["host"]
    try:
        # As `getaddrinfo` does it, which would fail later, and without the name.
        host.encode("idna")
    except UnicodeError as error:
        raise ValueError(f"{text!r} is not an address: the name of the host cannot be looked up ({error})") from None
    return TcpAddress(host, int(found["port"]))


def _unix_address(text: str) -> UnixAddress:
    path = text.removeprefix("unix:")
    # A file of such a name would not be what other programs mean by it.
    if path.startswith("@") or "\0" in path:
        raise ValueError(
            f"{text!r} is not an address: names in the abstract namespace are not supported; write the path of a file, "
            "as in unix:/run/site.sock"
        )
    size = len(os.fsencode(path))
    if size > LONGEST_PATH:
        raise ValueError(
            f"{text!r} is not an address: the path has {size} bytes, and the system allows {LONGEST_PATH}; choose a "
            "shorter one"
        )
    return UnixAddress(path)
