"""pyOpenSSL: OpenSSL reads and writes a blocking descriptor in C. Make it non-blocking for the call, and park here.

pyOpenSSL passes the descriptor to OpenSSL and does not use the socket any more. If the socket has a timeout or is
non-blocking, so is the descriptor: pyOpenSSL raises `WantReadError`, and its caller waits with a `select` that parks.
Otherwise OpenSSL would block the carrier, and forever if the peer is a virtual thread of the same carrier.

An inheritable descriptor keeps its mode, because other programs may share it; such a call blocks the carrier.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

from .._calls.net.readiness import READ, WRITE, nonblocking, park_for_library
from .._core.current import running
from .._core.thread import VirtualThread
from ..errors import Cancelled

__all__ = ["fit"]

# The methods in which OpenSSL reads or writes its descriptor. OpenSSL allows to repeat each with the same arguments.
REPEATED = ("do_handshake", "read", "recv", "recv_into", "send", "shutdown", "write")


def fit(ssl: ModuleType) -> list[Callable[[], None]]:
    """Adapt `OpenSSL.SSL`; return the functions that undo it."""
    module: Any = ssl
    connection = module.Connection
    directions = {module.WantReadError: READ, module.WantWriteError: WRITE}
    replacements = {name: _repeated(getattr(connection, name), directions) for name in REPEATED}
    replacements["sendall"] = _sendall(connection.sendall)
    undo: list[Callable[[], None]] = []
    for name, replacement in replacements.items():
        undo.append(partial(setattr, connection, name, getattr(connection, name)))
        setattr(connection, name, replacement)
    return undo


def _parks(connection: Any) -> VirtualThread | None:
    """Return the running virtual thread if OpenSSL would block its carrier; None if not."""
    thread = running()
    # Without a socket OpenSSL works on memory buffers.
    if thread is None or connection._socket is None:
        return None
    fd = connection.fileno()
    return thread if fd >= 0 and os.get_blocking(fd) and not os.get_inheritable(fd) else None


def _repeated(original: Callable[..., Any], directions: dict[type[Exception], int]) -> Callable[..., Any]:
    wanting = tuple(directions)

    @functools.wraps(original)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        thread = _parks(self)
        if thread is None:
            return original(self, *args, **kwargs)
        thread._check()
        while True:
            fd = self.fileno()
            try:
                with nonblocking(fd):
                    return original(self, *args, **kwargs)
            except wanting as wants:
                direction = directions[type(wants)]
            park_for_library(thread, fd, direction)

    return call


def _sendall(original: Callable[..., Any]) -> Callable[..., Any]:
    """`sendall` as a loop over `send`: if the original would have to wait, it does not report how much it has sent."""

    @functools.wraps(original)
    def sendall(self: Any, buf: Any, flags: int = 0) -> int:
        # Strings are deprecated there, and only the original converts them.
        if isinstance(buf, str) or _parks(self) is None:
            result: int = original(self, buf, flags)
            return result
        sent = 0
        with memoryview(buf) as view, view.cast("B") as left:
            try:
                while sent < len(left):
                    sent += self.send(left[sent:], flags)
            except Cancelled as cancelled:
                cancelled.bytes_sent = sent
                raise
        return sent

    return sendall
