"""Parking until a child process has something to tell, without taking it from anybody.

There are two ways. The end of one child is told by a pidfd, which is readable from then on. For a group of children,
any child, stops and continuations, or without pidfds, an OS thread looks: `waitid` with WNOWAIT leaves the child as it
is. Such a look cannot be stopped. So those who want to know the same share one, and one that nobody waits for any more
serves whoever asks next.

SIGCHLD is left alone, and nothing is reaped here: whoever is told takes the child by itself, with WNOHANG, and may find
that somebody else, on any thread, was faster.
"""

from __future__ import annotations

import os
from math import inf
from typing import Any, NamedTuple

from .._core.engine import TIMED_OUT
from .._core.originals import RLock, close_fd
from .._core.runtime import after_fork_hooks
from .._core.thread import VirtualThread
from ..net.readiness import READ, park_for_fd
from ..os_calls import Call, Limiter
from ..pauses import Pauses

__all__ = ["Changes", "ChildWait", "has_changed"]

# Not every platform has them. On Linux these are methods of one module, on others they may be missing together.
original_waitid: Any = getattr(os, "waitid", None)
original_pidfd_open: Any = getattr(os, "pidfd_open", None)

P_PIDFD: int | None = getattr(os, "P_PIDFD", None)

LONGEST_PAUSE = 0.05

# As many as there are different questions at once; each may stay without an answer for ever.
limiter = Limiter("children", 1024)


class Changes(NamedTuple):
    """What is waited for: the arguments of `waitid`."""

    idtype: int
    id: int
    options: int


class ChildWait:
    """One wait for `changes`, of up to `timeout` seconds."""

    def __init__(self, thread: VirtualThread, changes: Changes, timeout: float | None = None) -> None:
        self._thread = thread
        self._changes = changes
        self._now = thread.scheduler.clock.now
        self._until = inf if timeout is None else self._now() + timeout
        self._pauses = Pauses(thread, LONGEST_PAUSE, timeout)

    def park(self) -> bool:
        """Park until there may be a change, or nothing left to wait for; false if the time is over.

        The caller has just looked and found nothing. Raises what is due; then nothing has happened.
        """
        pidfd = self._open_pidfd()
        if pidfd is not None:
            try:
                if not park_for_fd(self._thread, pidfd, READ, self._left()):
                    return False
            finally:
                close_fd(pidfd)
            if has_changed(self._changes):
                return True
            # It has ended, but whoever traces it (a debugger) is to be told first, and the pidfd does not know.
        if original_waitid is None or self._changes.idtype == P_PIDFD:
            # A look at a pidfd could not be shared: tomorrow its number may mean another process.
            return self._pauses.park()
        return self._look()

    def _left(self) -> float | None:
        return None if self._until == inf else max(0.0, self._until - self._now())

    def _open_pidfd(self) -> int | None:
        idtype, id, options = self._changes
        if original_pidfd_open is None or options != os.WEXITED or idtype not in (os.P_PID, P_PIDFD):
            return None
        try:
            return os.dup(id) if idtype == P_PIDFD else original_pidfd_open(id)
        except OSError:
            # The process is gone, the kernel has none or forbids them, or there are no descriptors left.
            return None

    def _look(self) -> bool:
        thread, timeout = self._thread, self._left()
        call = _looks.join_or_start(thread, self._changes)
        thread.scheduler.outside += 1
        try:
            answer = call.park(thread, lambda abort: thread.park(abort, timeout))
        finally:
            thread.scheduler.outside -= 1
        if call.is_over and call.error is not None:
            raise RuntimeError(f"waiting for {self._changes} takes an OS thread: {call.error}") from call.error
        return answer is not TIMED_OUT


def has_changed(changes: Changes) -> bool | None:
    """Look whether there is a change, or nothing left to wait for; None if this platform cannot look."""
    if original_waitid is None:
        return None
    try:
        return original_waitid(*changes[:2], changes.options | os.WNOWAIT | os.WNOHANG) is not None
    except OSError:
        # It is not there any more: a change as well, which whoever waits will find.
        return True


def _wait_for_change(idtype: int, id: int, options: int) -> None:
    """On an OS thread."""
    try:
        original_waitid(idtype, id, options | os.WNOWAIT)
    except OSError:
        # There is no such child any more, or never was one: whoever waits will find the same.
        pass


class _Looks:
    """The looks under way in this process, by what is looked for."""

    def __init__(self) -> None:
        # Reentrant, because a finalizer may run inside.
        self._changing = RLock()
        self._calls: dict[Changes, Call] = {}

    def join_or_start(self, thread: VirtualThread, changes: Changes) -> Call:
        with self._changing:
            call = self._calls.get(changes)
            if call is None or call.is_over:
                call = self._calls[changes] = Call(
                    limiter, thread.scheduler.clock, _wait_for_change, changes, when_over=self._forget
                )
                call.start()
            return call

    def _forget(self, over: Call) -> None:
        with self._changing:
            for changes, call in list(self._calls.items()):
                if call is over:
                    del self._calls[changes]


_looks = _Looks()


def _forget_looks() -> None:
    """In the child of a fork: they are not there, nor are the children."""
    global _looks
    _looks = _Looks()


after_fork_hooks.append(_forget_looks)
