"""Names that the C library finds in `/etc/hosts`, without asking the network.

This only predicts it, by the file and by the order of sources in `/etc/nsswitch.conf`, as the GNU C library reads them.
The answer is the library's own. Where it is not certain, the prediction is "not found". A look-up waits for the network
in place only if its name was removed from the file within the last second.
"""

from __future__ import annotations

import os
import socket
from _io import FileIO
from math import inf
from time import monotonic
from typing import Any

__all__ = ["in_hosts"]

HOSTS = "/etc/hosts"
SOURCES = "/etc/nsswitch.conf"
# The library asks this daemon first, if it runs.
CACHE_DAEMON = "/var/run/nscd/socket"

# The library reads the whole file for each look-up. A larger one, as block lists are, is read on an OS thread.
LARGEST = 1 << 16

# How long to rely on the files: a question to the kernel for each look-up would cost a third of the look-up.
SECONDS = 1.0

# Flags that may change where a name is looked up: all but these two. A plain int, because enums are slow.
OTHER_FLAGS = ~int(socket.AI_PASSIVE | getattr(socket, "AI_NUMERICSERV", 0))

# The families whose addresses are found, by the family that is asked for. For both families, some versions of the
# library go on to the network if there is no IPv4 address.
FAMILIES = {socket.AF_UNSPEC: socket.AF_INET, socket.AF_INET: socket.AF_INET, socket.AF_INET6: socket.AF_INET6}

# Names in lower case, by family.
Names = dict[int, frozenset[str]]
NO_NAMES: Names = {socket.AF_INET: frozenset(), socket.AF_INET6: frozenset()}

# The original, saved before a test replaces it.
status_of = os.stat


def in_hosts(name: object, family: object = socket.AF_INET, flags: object = 0) -> bool:
    """Return whether a look-up of `name` is answered from the file. Not a checkpoint; thread-safe."""
    if not (type(name) is str and isinstance(family, int) and isinstance(flags, int)) or flags & OTHER_FLAGS:
        return False
    wanted = FAMILIES.get(family)  # type: ignore[call-overload]  # an IntEnum is a key of its number
    return wanted is not None and name.lower() in _table.names()[wanted]


def _is_gnu() -> bool:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") is not None
    except (AttributeError, ValueError, OSError):
        return False


class _Table:
    """The names in the file, read again when one of the two files has changed."""

    def __init__(self) -> None:
        self._is_supported = _is_gnu()
        # In one tuple, so that threads on several carriers see all parts change at once.
        self._latest: tuple[float, Any, Names] = -inf, None, NO_NAMES

    def names(self) -> Names:
        """Return the names of hosts that have an address, by family."""
        since, stamp, names = self._latest
        now = monotonic()
        if now - since >= SECONDS and self._is_supported:
            changed = _stamp()
            if changed != stamp:
                names = _read(changed)
            self._latest = now, changed, names
        return names


_table = _Table()


def _stamp() -> Any:
    """Return a value that changes with the files; None if one of them is missing."""
    try:
        hosts, sources = status_of(HOSTS), status_of(SOURCES)
    except OSError:
        return None
    return hosts.st_ctime_ns, hosts.st_ino, sources.st_ctime_ns, sources.st_ino


def _read(stamp: Any) -> Names:
    if stamp is None:
        return NO_NAMES
    try:
        if os.path.exists(CACHE_DAEMON) or status_of(HOSTS).st_size > LARGEST:
            return NO_NAMES
        return _names_in(_lines(HOSTS)) if _is_first_source(_lines(SOURCES)) else NO_NAMES
    except OSError:
        return NO_NAMES


def _lines(path: str) -> list[str]:
    """Return the lines of a file without comments. It is read in place: it is small, and the library reads it too."""
    # The class of `_io` is not replaced by the patch, after which this module may be imported.
    with FileIO(path) as file:
        text = file.readall().decode("ascii", "replace")
    return [line.partition("#")[0] for line in text.split("\n")]


def _is_first_source(lines: list[str]) -> bool:
    """Return whether the file of hosts is asked first, and no other source after it has answered."""
    for line in lines:
        database, _, sources = line.partition(":")
        if database.strip() == "hosts":
            first, second, *_ = [*sources.split(), "", ""]
            # An action in brackets may require that other sources are asked nevertheless.
            return first == "files" and not second.startswith("[")
    return False


def _names_in(lines: list[str]) -> Names:
    found: dict[int, set[str]] = {family: set() for family in NO_NAMES}
    for line in lines:
        address, *names = line.split() or [""]
        for family, known in found.items():
            if _is_address(address, family):
                known.update(name.lower() for name in names)
    return {family: frozenset(names) for family, names in found.items()}


def _is_address(text: str, family: int) -> bool:
    try:
        socket.inet_pton(family, text)
    except OSError:
        return False
    return True
