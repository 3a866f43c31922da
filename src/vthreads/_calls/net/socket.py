"""Replacements for the methods of `socket.socket`, which park the virtual thread instead of blocking its carrier.

Each calls the original in a way that does not block, and calls it again after each wait. On a plain OS thread it only
calls the original, except for sockets with a timeout that a virtual thread has used before.
"""

from __future__ import annotations

import errno
import socket
from contextlib import suppress
from typing import Any

from ..._core.engine import READ, WRITE, quick_socket_calls
from ..._core.exceptions import traceback_of
from .attempts import DONTWAIT
from .closing import forget, refuse_own
from .connecting import _accept, bind, connect, connect_ex
from .managed import C, Socket, getblocking, gettimeout, managed, setblocking, settimeout
from .readiness import end_waits, forget_fd
from .receiving import recv, recv_into, recvfrom, recvfrom_into, recvmsg, recvmsg_into
from .sending import send, sendall, sendmsg, sendto

__all__ = ["METHODS", "close_local", "close_socket", "create_connection"]

# The original methods. `close` of the C class is below the Python class, so it is not replaced.
original_real_close = Socket._real_close  # type: ignore[attr-defined]  # not in the type stubs
original_create_connection, original_close = socket.create_connection, socket.close


def _real_close(self: Socket, *args: Any) -> None:
    fd = self.fileno()
    if fd >= 0:
        forget_fd(fd)
    managed.pop(id(self), None)
    original_real_close(self, *args)


def shutdown(self: Socket, *how: Any) -> None:
    """`socket.shutdown`, which ends the waits for what it shuts down. Not a checkpoint."""
    C.shutdown(self, *how)
    # A shutdown ends the wait of an OS thread in the kernel at once. A virtual thread runs later, when the program may
    # have closed the socket as well; and for a Unix socket the poller does not report the shutdown to a thread that
    # waits for room. So end the waits here.
    directions = WRITE if how[0] != socket.SHUT_RD and self.type == socket.SOCK_STREAM else 0
    if how[0] != socket.SHUT_WR and _has_no_data(self):
        directions |= READ
    end_waits(self.fileno(), directions)


def _has_no_data(sock: Socket) -> bool:
    """Return whether a read of `sock`, which was shut down, finds the end of data."""
    try:
        return not C.recv(sock, 1, socket.MSG_PEEK | DONTWAIT)
    except OSError as error:
        # A datagram socket or a listener: only a call that waits gets the end of data, or EINVAL.
        return error.errno in (errno.EAGAIN, errno.ENOTCONN, errno.EINVAL)


def detach(self: Socket, /) -> int:
    fd = self.fileno()
    if fd >= 0:
        forget_fd(fd)
    entry = managed.pop(id(self), None)
    if entry is not None:
        # Code that takes over the descriptor expects the mode that CPython would have left.
        with suppress(OSError):
            # The descriptor was closed by its number.
            C.settimeout(self, entry.timeout)
    # Set the attribute as the original does; `super()` would fail for a class of `socket` that was imported again.
    self._closed = True  # type: ignore[attr-defined]  # private
    detached: int = C.detach(self)
    return detached


def close_socket(fd: Any, /) -> None:
    """`socket.close`. Not a checkpoint."""
    refuse_own(fd)
    forget(fd)
    original_close(fd)


def create_connection(*args: Any, **kwargs: Any) -> Socket:
    """`socket.create_connection`, which closes its socket after a cancellation too; the original after an `OSError`."""
    try:
        return original_create_connection(*args, **kwargs)
    except OSError:
        raise
    except BaseException as error:
        # Most often `Cancelled`. Only the frame in the traceback still refers to the socket: close it there.
        close_local(error, original_create_connection, "sock")
        raise


def close_local(error: BaseException, function: Any, variable: str) -> None:
    """Close the socket in a local variable of `function`, if `error` was raised through a frame of it."""
    traceback = traceback_of(error)
    while traceback is not None:
        if traceback.tb_frame.f_code is function.__code__:
            sock = traceback.tb_frame.f_locals.get(variable)
            if isinstance(sock, Socket):
                sock.close()
        traceback = traceback.tb_next


# The methods that patching sets on `socket.socket`, by name.
METHODS: dict[str, Any] = {
    "_accept": _accept,
    "_real_close": _real_close,
    "bind": bind,
    "connect": connect,
    "connect_ex": connect_ex,
    "detach": detach,
    "getblocking": getblocking,
    "gettimeout": gettimeout,
    "recv": recv,
    "recv_into": recv_into,
    "recvfrom": recvfrom,
    "recvfrom_into": recvfrom_into,
    "recvmsg": recvmsg,
    "recvmsg_into": recvmsg_into,
    "send": send,
    "sendall": sendall,
    "sendmsg": sendmsg,
    "sendto": sendto,
    "setblocking": setblocking,
    "settimeout": settimeout,
    "shutdown": shutdown,
    "timeout": property(gettimeout, doc="the socket timeout"),
}
METHODS |= quick_socket_calls(METHODS.copy(), managed)
