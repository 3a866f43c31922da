"""Replacements for the methods of `socket.socket` that name an address or wait for a peer: connect, bind, accept."""

from __future__ import annotations

import errno
import os
import select
import socket
import sys
from typing import Any

from ..._core.current import on_carrier, running
from ..._core.engine import READ, WRITE
from ..._core.originals import poll
from ..._core.repeated import repeated_in
from .attempts import AF_UNIX, attempts_on
from .dns import getaddrinfo
from .managed import C, Socket, family_of, manage, managed, timeout_of
from .modes import is_kept, keep_nonblocking
from .modes import original_set_blocking as set_blocking
from .readiness import nonblocking, wait_blocking

__all__ = ["_accept", "bind", "connect", "connect_ex", "resolved"]

# BSD: an accepted socket has the mode of its listener.
ACCEPTED_INHERIT_MODE = sys.platform != "linux"


def resolved(sock: Socket, address: Any) -> Any:
    """Return `address` with its host name resolved. The C call would resolve it while it blocks the carrier."""
    family = family_of(sock)
    if running() is None or family not in (socket.AF_INET, socket.AF_INET6):
        return address
    if not isinstance(address, tuple) or len(address) < 2 or not isinstance(address[0], str) or not address[0]:
        return address
    host, port = address[0], address[1]
    if not isinstance(port, int) or not 0 <= port <= 0xFFFF or "\0" in host:
        # The original raises the error for it.
        return address
    if host == "<broadcast>" or _is_numeric(family, host):
        return address
    found = getaddrinfo(host, port, family, sock.type, sock.proto)
    return (*found[0][4][:2], *address[2:]) if found else address


@repeated_in("_calls/net/compiled/socket.pxi")
def _is_numeric(family: int, host: str) -> bool:
    try:
        socket.inet_pton(family, host)
    except (OSError, ValueError):
        return False
    return True


@repeated_in("_calls/net/compiled/socket.pxi")
def _connect(sock: Socket, address: Any) -> int:
    """Connect and return the error number, 0 for success. A checkpoint."""
    attempts = attempts_on(sock)
    if attempts is None:
        return C.connect_ex(sock, address)
    address = resolved(sock, address)
    while True:
        # No other process reads or writes a socket that is not connected yet, so O_NONBLOCK can be set even if the
        # descriptor is inheritable.
        mode = nonblocking(sock.fileno())
        with mode:
            error = C.connect_ex(sock, address)
        if error == errno.EAGAIN and sock.family == AF_UNIX:
            # The listener's queue is full, and no readiness event reports when it has room.
            attempts.pause()
            continue
        if error not in (errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EALREADY):
            return error
        if not mode.was_blocking and id(sock) not in managed:
            # The program made the socket non-blocking, so it expects this error.
            return error
        # On the same machine the connection is usually complete already; then do not wait.
        if not _has_peer(sock):
            attempts.wait(WRITE)
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error or _has_peer(sock):
            return error
        if _was_reset(sock):
            return errno.ECONNRESET


@repeated_in("_calls/net/compiled/socket.pxi")
def _has_peer(sock: Socket) -> bool:
    # A new socket reports itself writable once before it starts to connect, so readiness proves nothing. A peer does.
    try:
        sock.getpeername()
    except OSError as error:
        return error.errno != errno.ENOTCONN
    return True


@repeated_in("_calls/net/compiled/socket.pxi")
def _was_reset(sock: Socket) -> bool:
    """Return whether `sock` neither connects nor is connected: another thread has shut it down."""
    # A second `connect` would begin again, and wait for as long as the first one.
    if poll is None:
        return False
    hang_up = poll()
    hang_up.register(sock.fileno(), 0)
    return any(events & select.POLLHUP for _, events in hang_up.poll(0))


@repeated_in("_calls/net/compiled/socket.pxi")
def connect(self: Socket, address: Any, /) -> None:
    if running() is None and id(self) not in managed and not on_carrier() or timeout_of(self) == 0:
        return C.connect(self, address)
    error = _connect(self, address)
    if error:
        raise OSError(error, os.strerror(error))
    return None


def connect_ex(self: Socket, address: Any, /) -> int:
    try:
        return _connect(self, address)
    except TimeoutError:
        # The original returns this number too, if the timeout of the socket expires first.
        return errno.EWOULDBLOCK
    except OSError as error:
        # The socket was closed during the wait. A name that is not found stays an exception.
        if error.errno != errno.EBADF:
            raise
        return errno.EBADF


def bind(self: Socket, address: Any, /) -> None:
    C.bind(self, resolved(self, address))


@repeated_in("_calls/net/compiled/socket.pxi")
def _accept(self: Socket, /) -> tuple[int, Any]:
    attempts = attempts_on(self)
    if attempts is None:
        return _accept_or_wait(self)
    while True:
        # Accept again after each wait: another process that shares the listener may have accepted the connection.
        try:
            if _does_not_wait(self):
                return _accept_now(self)
        except BlockingIOError:
            if timeout_of(self) is None and not is_kept(self.fileno()):
                raise
        if not attempts.wait(READ):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


def _accept_or_wait(sock: Socket) -> tuple[int, Any]:
    try:
        return C._accept(sock)
    except BlockingIOError:
        # Another process that shares the listener may have made it non-blocking for its own runtime. The program sees a
        # blocking socket, so wait here.
        if C.gettimeout(sock) is not None or not is_kept(sock.fileno()):
            raise
    manage(sock, None)
    return _accept(sock)


@repeated_in("_calls/net/compiled/socket.pxi")
def _accept_now(sock: Socket) -> tuple[int, Any]:
    accepted, address = C._accept(sock)
    if ACCEPTED_INHERIT_MODE:
        set_blocking(accepted, True)
    return accepted, address


def _does_not_wait(sock: Socket) -> bool:
    """Prevent accept(2) on `sock` from waiting; return False if it would wait.

    O_NONBLOCK stays set for the life of the listener. It belongs to the open file: if it were set for one call only, a
    call of another process or OS thread could begin just after it was cleared, and block its carrier. The flag is
    checked before each call, because every sharer of the listener can change it.
    """
    fd = sock.fileno()
    # Python opens descriptors non-inheritable (PEP 446). An inheritable one came through an `exec`, or may go through
    # one, so other programs may share the open file and would see O_NONBLOCK. Check readiness instead of setting it.
    if os.get_inheritable(fd) and os.get_blocking(fd):
        return wait_blocking(fd, READ, 0)
    keep_nonblocking(fd)
    if timeout_of(sock) is None and is_kept(fd):
        # OS threads that use this object must still wait, and `unpatch` must restore blocking mode.
        manage(sock, None)
    return True
