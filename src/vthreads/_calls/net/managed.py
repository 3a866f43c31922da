"""Managed sockets: sockets with a timeout that CPython sees as non-blocking.

If a socket has a timeout, CPython waits inside the C call, which would block the carrier. So a socket with a timeout
that a virtual thread uses becomes *managed*: CPython sees it as non-blocking, and its timeout is stored here. This is
invisible to others that share the open file, because CPython had set O_NONBLOCK for the timeout already. A socket
without a timeout stays in blocking mode and is called with MSG_DONTWAIT; listeners differ (see `modes`).
"""

from __future__ import annotations

import socket
import weakref
from typing import Any

from ..._core.current import running
from .modes import changed_by_program

__all__ = [
    "C",
    "Socket",
    "family_of",
    "getblocking",
    "gettimeout",
    "manage",
    "managed",
    "release_all",
    "setblocking",
    "settimeout",
    "timeout_of",
]

Socket = socket.socket
# The class of C code below `socket.socket`, which has the original methods.
C: Any = socket.socket.__mro__[1]
# The Python property creates an enum member each time.
family_of = C.family.__get__


class _Managed:
    """The timeout of a managed socket as its user sees it; None means blocking mode."""

    __slots__ = ("reference", "timeout")

    def __init__(self, sock: Socket, timeout: float | None) -> None:
        self.timeout = timeout
        key = id(sock)
        self.reference = weakref.ref(sock, lambda _: managed.pop(key, None))


# Keyed by id: sockets have no slot for another attribute, and a dict lookup takes some tens of nanoseconds.
managed: dict[int, _Managed] = {}


def manage(sock: Socket, timeout: float | None) -> _Managed:
    """Make `sock` managed: CPython sees it as non-blocking, and `timeout` (seconds, None for none) is stored here."""
    entry = managed.get(id(sock))
    if entry is None:
        C.settimeout(sock, 0)
        entry = managed[id(sock)] = _Managed(sock, timeout)
    entry.timeout = timeout
    return entry


def timeout_of(sock: Socket) -> float | None:
    """Return the timeout of `sock` as its user set it; a socket that has one becomes managed."""
    entry = managed.get(id(sock))
    if entry is not None:
        return entry.timeout
    timeout = C.gettimeout(sock)
    if timeout:
        manage(sock, timeout)
    return timeout


def release_all() -> None:
    """Restore the timeout of every managed socket in CPython, for `unpatch`."""
    for entry in list(managed.values()):
        sock = entry.reference()
        if sock is not None and sock.fileno() >= 0:
            C.settimeout(sock, entry.timeout)
    managed.clear()


def settimeout(self: Socket, value: float | None, /) -> None:
    # Call the original first: it validates the value and sets O_NONBLOCK accordingly.
    C.settimeout(self, value)
    timeout = C.gettimeout(self)
    if timeout == 0:
        # The program itself made the open file non-blocking. Objects that share it, and have no timeout, see that too.
        changed_by_program(self.fileno())
    was_managed = managed.pop(id(self), None) is not None
    # OpenSSL has no MSG_DONTWAIT, so a TLS socket in blocking mode must be managed too.
    waits_here = timeout or timeout is None and getattr(self, "_sslobj", None) is not None
    if waits_here and (was_managed or running() is not None):
        # Store the value as the original converted it: a float, whatever number was passed.
        manage(self, timeout)


def setblocking(self: Socket, flag: bool, /) -> None:
    # Call the original first: it validates the flag.
    C.setblocking(self, flag)
    settimeout(self, C.gettimeout(self))


def gettimeout(self: Socket, /) -> float | None:
    entry = managed.get(id(self))
    return C.gettimeout(self) if entry is None else entry.timeout


def getblocking(self: Socket, /) -> bool:
    return gettimeout(self) != 0
