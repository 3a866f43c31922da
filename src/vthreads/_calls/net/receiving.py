"""Replacements for the methods of `socket.socket` that receive."""

from __future__ import annotations

import socket
from collections.abc import Callable
from operator import index
from typing import Any

from ..._core.current import running
from ..._core.engine import READ
from ..._core.repeated import repeated_in
from ...errors import Cancelled
from .attempts import DONTWAIT, attempts_on, call_with_flags, nothing_for
from .managed import C, Socket, family_of, gettimeout
from .readiness import expect_urgent

__all__ = ["recv", "recv_into", "recvfrom", "recvfrom_into", "recvmsg", "recvmsg_into"]

WAITALL = getattr(socket, "MSG_WAITALL", 0)
ERRQUEUE = getattr(socket, "MSG_ERRQUEUE", 0)
# Address families whose sockets have an error queue. The others ignore MSG_ERRQUEUE and wait for data.
WITH_ERRORS = {getattr(socket, name, None) for name in ("AF_INET", "AF_INET6", "AF_PACKET", "AF_CAN")}


def _checked_flags(sock: Socket, flags: Any) -> int:
    """Add MSG_DONTWAIT where the kernel never waits: for the error queue, and for urgent data of a stream."""
    flags = index(flags)
    if flags & ERRQUEUE and family_of(sock) in WITH_ERRORS:
        return flags | DONTWAIT
    if flags & socket.MSG_OOB and sock.type == socket.SOCK_STREAM:
        expect_urgent(sock.fileno())
        return flags | DONTWAIT
    return flags


@repeated_in("_calls/net/compiled/socket.pxi")
def _receive(sock: Socket, call: Callable[..., Any], wanted: int, args: tuple[Any, ...], flags: int) -> Any:
    """Read bytes or a count. Park without an attempt if the last read left the socket empty.

    The entry of the descriptor records whether an edge may be unread. After a read that emptied the socket it is not
    readable, so a system call could only fail; the next edge sets it again.
    """
    attempts = attempts_on(sock, flags)
    if attempts is None:
        return call(sock, *args, flags)
    thread = attempts.thread
    entry = None if thread is None or flags else thread._scheduler.descriptors.find(sock.fileno(), sock)
    while True:
        if entry is None or entry.readable or not entry.mode_is_known or not wanted:
            try:
                answer = call(sock, *args, flags | DONTWAIT)
            except BlockingIOError:
                if entry is not None:
                    entry.drained()
            else:
                count = answer if isinstance(answer, int) else len(answer)
                # A short read means that the kernel's buffer is empty. So mark the entry as drained, and the next read
                # parks at once. Data that arrive from now on cause a new edge. Where a short read proves nothing
                # (a read may end at an urgent mark or a message), `short_read_drains` is false and the next read tries.
                if entry is not None and 0 < count < wanted and entry.short_read_drains:
                    entry.drained()
                return answer
        if not attempts.wait(READ):
            return nothing_for(call)


@repeated_in("_calls/net/compiled/socket.pxi")
def recv(self: Socket, bufsize: int, flags: int = 0, /) -> bytes:
    flags, bufsize = _checked_flags(self, flags), index(bufsize)
    if flags and bufsize > 0 and _wants_all(self, flags):
        buffer = bytearray(bufsize)
        return bytes(buffer[: _receive_all(self, buffer, flags)])
    return _receive(self, C.recv, bufsize, (bufsize,), flags)


@repeated_in("_calls/net/compiled/socket.pxi")
def recv_into(self: Socket, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
    flags, nbytes = _checked_flags(self, flags), index(nbytes)
    if flags and nbytes >= 0 and _wants_all(self, flags):
        with memoryview(buffer) as view, view.cast("B") as whole:
            return _receive_all(self, whole[: nbytes or len(whole)], flags)
    wanted = nbytes or memoryview(buffer).nbytes
    return _receive(self, C.recv_into, wanted, (buffer, nbytes), flags)


def _wants_all(sock: Socket, flags: int) -> bool:
    """Return whether the kernel would wait for the full size: MSG_WAITALL on a stream socket in blocking mode."""
    return bool(
        flags & WAITALL
        and not flags & (DONTWAIT | socket.MSG_PEEK)
        and running() is not None
        and sock.type == socket.SOCK_STREAM
        and gettimeout(sock) is None
    )


def _receive_all(sock: Socket, buffer: bytearray | memoryview, flags: int) -> int:
    """Fill `buffer`. If a cancellation or error comes after a part, return the part, as the kernel does after a signal.

    Raising would lose the bytes that were already received. The cancellation is raised at the next checkpoint.
    """
    received = 0
    with memoryview(buffer) as view:
        while received < len(view):
            try:
                count = _receive(sock, C.recv_into, 0, (view[received:], 0), flags)
            except (Cancelled, OSError):
                if not received:
                    raise
                break
            if not count:
                break
            received += count
    return received


@repeated_in("_calls/net/compiled/socket.pxi")
def recvfrom(self: Socket, bufsize: int, flags: int = 0, /) -> Any:
    return call_with_flags(self, READ, C.recvfrom, (bufsize,), _checked_flags(self, flags))


def recvfrom_into(self: Socket, buffer: Any, nbytes: int = 0, flags: int = 0) -> Any:
    return call_with_flags(self, READ, C.recvfrom_into, (buffer, nbytes), _checked_flags(self, flags))


def recvmsg(self: Socket, bufsize: int, ancbufsize: int = 0, flags: int = 0, /) -> Any:
    return call_with_flags(self, READ, C.recvmsg, (bufsize, ancbufsize), _checked_flags(self, flags))


def recvmsg_into(self: Socket, buffers: Any, ancbufsize: int = 0, flags: int = 0, /) -> Any:
    return call_with_flags(self, READ, C.recvmsg_into, (list(buffers), ancbufsize), _checked_flags(self, flags))
