"""The rows of `socket` in the table of replacements."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

from .._calls.net import dns
from .._calls.net import socket as net_socket
from .replacing import MethodRow, always

__all__ = ["MODULE_ATTRIBUTES", "methods"]

MODULE_ATTRIBUTES: list[tuple[Any, str, Any]] = [
    (socket, "create_connection", net_socket.create_connection),
    (socket, "close", net_socket.close_socket),
    (socket, "getaddrinfo", dns.getaddrinfo),
    (socket, "gethostbyname", dns.gethostbyname),
    (socket, "gethostbyname_ex", dns.gethostbyname_ex),
    (socket, "gethostbyaddr", dns.gethostbyaddr),
    (socket, "getnameinfo", dns.getnameinfo),
]


def methods() -> Iterator[MethodRow]:
    """Yield the replaced methods."""
    for name, new in net_socket.METHODS.items():
        yield socket.socket, name, always(new)
