"""The attempts of one call on a socket: call the original so that it does not block, and again after each wait."""

from __future__ import annotations

import errno
import os
import socket
import time
import weakref
from collections.abc import Callable
from math import inf
from operator import index
from typing import Any

from ..._core.current import on_carrier, running
from ..._core.engine import READ, WRITE, Descriptor
from ..._core.originals import sleep
from ..._core.repeated import repeated_in
from ..._core.thread import VirtualThread
from ..._core.wait_queue import refuse_to_wait_inside_scheduler, waiter_here
from .managed import C, Socket, managed, timeout_of
from .modes import refusal
from .readiness import has_read_end, park_for_owned, wait_blocking

__all__ = ["AF_UNIX", "DONTWAIT", "attempts_on", "call_with_flags", "nothing_for"]

# A plain int: together with a negative number, the member of the enum would become other flags.
DONTWAIT = int(getattr(socket, "MSG_DONTWAIT", 0))
AF_UNIX = getattr(socket, "AF_UNIX", None)
# Seconds between attempts where no readiness event reports that the call can succeed.
SHORTEST_PAUSE, LONGEST_PAUSE = 0.001, 0.05


@repeated_in("_calls/net/compiled/attempts.pxi")
class _Attempts:
    """The attempts of one call on one socket: their time limit, and how to wait between them."""

    __slots__ = ("_deadline", "_pause", "_sock", "_waited", "thread")

    def __init__(self, sock: Socket, thread: VirtualThread | None, timeout: float | None) -> None:
        self._sock = sock
        self.thread = thread
        self._pause = SHORTEST_PAUSE
        self._waited = False
        self._deadline = inf if timeout is None else self._now() + timeout

    def _now(self) -> float:
        return time.monotonic() if self.thread is None else self.thread._scheduler.clock.now()

    def wait(self, direction: int, what: str = "timed out") -> bool:
        """Wait until the socket is ready, after an attempt that would block. A checkpoint.

        Returns:
            False if the data have ended, because the socket was shut down. The caller then makes no other attempt: the
            socket may be closed as well, and on a datagram socket or a Unix listener an attempt would find "would
            block" again, because only a call that waits in the kernel gets the end of data there.
        """
        timeout = None if self._deadline == inf else self._deadline - self._now()
        if timeout is not None and timeout <= 0:
            raise TimeoutError(what)
        sock, thread = self._sock, self.thread
        if thread is None:
            refuse_to_wait_inside_scheduler()
            ready = wait_blocking(sock.fileno(), direction, timeout)
        else:
            owner = weakref.ref(sock)
            entry = thread._scheduler.descriptors.claim(sock.fileno(), owner)
            self._refuse_if_nonblocking(entry)
            if direction == READ and self._finds_end(entry):
                return False
            try:
                ready = park_for_owned(thread, entry.fd, direction, owner, timeout)
            except OSError:
                if entry.ended & direction:
                    return _after_close(entry, direction)
                raise
        if not ready:
            raise TimeoutError(what)
        if thread is not None:
            thread._check()
            if sock.fileno() != entry.fd or self._was_closed_by_number(entry, direction):
                return _after_close(entry, direction)
        return True

    def _was_closed_by_number(self, entry: Descriptor, direction: int) -> bool:
        """Return whether the socket was shut down and then closed by its number, of which its object does not know."""
        if not entry.ended & direction or self.thread is None:
            return False
        return self.thread._scheduler.descriptors.get(entry.fd) is not entry

    def _refuse_if_nonblocking(self, entry: Descriptor) -> None:
        if not entry.mode_is_known:
            # A socket without a timeout waits only if its open file is in blocking mode. Another object may have
            # changed that since the last check, so read the flag.
            if id(self._sock) not in managed and not os.get_blocking(entry.fd):
                raise refusal()
            entry.waits()

    def _finds_end(self, entry: Descriptor) -> bool:
        """Return whether reading has ended although the last attempt would block."""
        # Asking the kernel costs a system call. Not all pollers report a hangup: so ask also after a wait that
        # ended without data.
        may_have_ended = entry.hung_up or self._waited
        self._waited = True
        return may_have_ended and has_read_end(entry.fd)

    def found_nothing(self) -> None:
        """Record that a read has found the buffer of the kernel empty."""
        if self.thread is not None:
            entry = self.thread._scheduler.descriptors.find(self._sock.fileno(), self._sock)
            if entry is not None:
                entry.drained()

    def pause(self) -> None:
        """Wait a growing time, where no readiness event reports when to try again. A checkpoint."""
        seconds = min(self._pause, self._deadline - self._now())
        if seconds <= 0:
            raise TimeoutError("timed out")
        self._pause = min(self._pause * 2, LONGEST_PAUSE)
        if self.thread is None:
            refuse_to_wait_inside_scheduler()
            sleep(seconds)
        else:
            waiter_here()._park(None, seconds)
            self.thread._check()


@repeated_in("_calls/net/compiled/attempts.pxi")
def _after_close(entry: Descriptor, direction: int) -> bool:
    """Return False, the end of data, or raise, for a call whose socket was closed during its wait.

    An OS thread that waits in the kernel gets the end of data at the `shutdown`, whatever comes after it. A virtual
    thread runs later, when the socket may have been closed as well.
    """
    if not entry.ended & direction:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    if direction == WRITE:
        raise OSError(errno.EPIPE, os.strerror(errno.EPIPE))
    return False


@repeated_in("_calls/net/compiled/attempts.pxi")
def attempts_on(sock: Socket, flags: Any = 0) -> _Attempts | None:
    """Return the attempts of a call on `sock`, or None if a plain call of the original is right. A checkpoint."""
    thread = running()
    if thread is None and id(sock) not in managed and not on_carrier():
        return None
    timeout = timeout_of(sock)
    if timeout == 0 or sock.fileno() < 0:
        return None
    if flags and timeout is None and isinstance(flags, int) and flags & DONTWAIT:
        # The caller passed MSG_DONTWAIT. (With a timeout the original waits nevertheless.)
        return None
    if thread is not None:
        thread._check()
    return _Attempts(sock, thread, timeout)


def call_with_flags(
    sock: Socket, direction: int, call: Callable[..., Any], args: tuple[Any, ...], flags: int, *after: Any
) -> Any:
    """Call `call(sock, *args, flags, *after)`, and wait for `direction` while it would block. A checkpoint."""
    attempts = attempts_on(sock, flags)
    if attempts is None:
        return call(sock, *args, flags, *after)
    flags = index(flags)
    # Whether a Unix datagram can be sent depends on the receiver's queue, which the sender's readiness does not show.
    by_pauses = direction == WRITE and sock.family == AF_UNIX and sock.type == socket.SOCK_DGRAM
    while True:
        try:
            return call(sock, *args, flags | DONTWAIT, *after)
        except BlockingIOError:
            pass
        if by_pauses:
            attempts.pause()
        elif not attempts.wait(direction):
            return nothing_for(call)


def nothing_for(call: Callable[..., Any]) -> Any:
    """Return what the original `call`, one that receives, returns at the end of data."""
    with_messages: dict[Callable[..., Any], tuple[Any, ...]] = {
        C.recvfrom: (b"", None),
        C.recvfrom_into: (0, None),
        C.recvmsg: (b"", [], 0, None),
        C.recvmsg_into: (0, [], 0, None),
    }
    return with_messages.get(call, b"" if call is C.recv else 0)
