"""Park until a child process may have changed state, without reaping it.

There are two ways. For the end of a single child: a pidfd, which becomes readable. For a group of children, any child,
stops and continuations, or without pidfds: `waitid` with WNOWAIT on an OS thread, which leaves the child as it is. Such
a call cannot be interrupted, so equal calls are shared, and a call without waiters serves the next thread that waits.

SIGCHLD is not used, and nothing is reaped here: each waiter reaps by itself, with WNOHANG, and may find that another
thread was faster.
"""

from __future__ import annotations

import os
from math import inf
from typing import Any, NamedTuple

from ..._core.engine import TIMED_OUT, Section
from ..._core.originals import close_fd
from ..._core.participants import Participant, participate
from ..._core.thread import VirtualThread
from ..._os_threads.calls import Call, Limiter
from ..net.readiness import READ, park_for_new
from ..pauses import Pauses

__all__ = ["Changes", "ChildWait", "has_changed"]

# Not every platform has these. On Linux the module has both; elsewhere one or both may be missing.
original_waitid: Any = getattr(os, "waitid", None)
original_pidfd_open: Any = getattr(os, "pidfd_open", None)

P_PIDFD: int | None = getattr(os, "P_PIDFD", None)

LONGEST_PAUSE = 0.05

# One OS thread per different wait; each may block until its child ends. So the limit is high.
limiter = Limiter("children", 1024)


class Changes(NamedTuple):
    """The state changes to wait for: the arguments of `waitid`."""

    idtype: int
    id: int
    options: int


class ChildWait:
    """A wait for `changes` of up to `timeout` seconds."""

    def __init__(self, thread: VirtualThread, changes: Changes, timeout: float | None = None) -> None:
        self._thread = thread
        self._changes = changes
        self._now = thread._scheduler.clock.now
        self._until = inf if timeout is None else self._now() + timeout
        self._pidfd_has_reported = False
        self._pauses: Pauses | None = None

    def park(self) -> bool:
        """Park until there may be a change, or nothing to wait for; return False if the time has expired.

        The caller has just checked and found no change. Raises a pending cancellation; nothing is lost then.
        """
        # If the pidfd has reported the end and the caller sees none, a tracer (a debugger) sees it first.
        pidfd = None if self._pidfd_has_reported else self._open_pidfd()
        if pidfd is not None:
            try:
                self._pidfd_has_reported = park_for_new(self._thread, pidfd, READ, self._seconds_left())
                return self._pidfd_has_reported
            finally:
                close_fd(pidfd)
        if original_waitid is None or self._changes.idtype == P_PIDFD:
            # Calls for a pidfd cannot be shared: its number may mean another process by the next call.
            self._pauses = self._pauses or Pauses(self._thread, LONGEST_PAUSE, self._seconds_left())
            return self._pauses.park()
        return self._wait_on_os_thread()

    def _seconds_left(self) -> float | None:
        return None if self._until == inf else max(0.0, self._until - self._now())

    def _open_pidfd(self) -> int | None:
        idtype, id, options = self._changes
        if original_pidfd_open is None or options != os.WEXITED or idtype not in (os.P_PID, P_PIDFD):
            return None
        try:
            return os.dup(id) if idtype == P_PIDFD else original_pidfd_open(id)
        except OSError:
            # The process is gone, the kernel lacks or forbids pidfds, or no descriptors are left.
            return None

    def _wait_on_os_thread(self) -> bool:
        thread, timeout = self._thread, self._seconds_left()
        call = _looks.join_or_start(thread, self._changes)
        thread._scheduler.outside += 1
        try:
            answer = call.park(thread, lambda abort: thread._park(abort, timeout))
        finally:
            thread._scheduler.outside -= 1
        if call.is_over and call.error is not None:
            raise RuntimeError(
                f"waiting for {self._changes} needs an OS thread, which did not start: {call.error}"
            ) from call.error
        return answer is not TIMED_OUT


def has_changed(changes: Changes) -> bool | None:
    """Check for a change, or for nothing left to wait for; return None if this platform cannot check."""
    if original_waitid is None:
        return None
    try:
        return original_waitid(*changes[:2], changes.options | os.WNOWAIT | os.WNOHANG) is not None
    except OSError:
        # The child is gone, which counts as a change: the waiter's own call will report it.
        return True


def _wait_for_change(idtype: int, id: int, options: int) -> None:
    """Wait for a change; called on an OS thread."""
    try:
        original_waitid(idtype, id, options | os.WNOWAIT)
    except OSError:
        # There is no such child (any more): the waiter's own call will report the same.
        pass


class _Looks:
    """The `waitid` calls in progress in this process, by their arguments."""

    def __init__(self) -> None:
        # Reentrant: the garbage collector may run a finalizer that waits for a child while this thread holds it.
        self._changing = Section()
        self._calls: dict[Changes, Call] = {}

    def join_or_start(self, thread: VirtualThread, changes: Changes) -> Call:
        with self._changing:
            call = self._calls.get(changes)
            if call is None or call.is_over:
                call = self._calls[changes] = Call(
                    limiter, thread._scheduler.clock, _wait_for_change, changes, when_over=self._forget
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
    """Start without calls in the child of a fork: neither their OS threads nor the children exist there."""
    global _looks
    _looks = _Looks()


participate(__name__, Participant(forked=_forget_looks))
