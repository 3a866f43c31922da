"""The work of a signal that must wait, while a thread pins the carrier.

A handler that interrupts the runtime's own code starts at the next switch, and the root raises what a handler raised at
its next checkpoint. If the thread that runs does not switch, because it computes or is in a C function that does not
return, neither happens: SIGTERM would have no effect, and a time limit, such as that of pytest-timeout, could not end
it. So an OS thread checks the carrier a while later. If it has not switched, it sends the signal once more, which
interrupts the C function, and the work is done at once.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # not in the type stubs
from collections import deque
from collections.abc import Callable
from math import inf

from .._core.current import carriers, running
from .._core.engine import Fiber, Scheduler
from .._core.originals import LockType, allocate_lock, get_ident
from .._core.os_thread_kinds import ending_os_threads, own_os_threads
from .._core.own_os_thread import start_own_os_thread

__all__ = ["Overdue", "Postponed"]

# Seconds without a switch after which the carrier counts as pinned.
PINNED_AFTER = 1.0


class _SentAgain:
    """A signal that is sent again while the thread that runs does not switch.

    Args:
        signalnum: the signal to send to the OS thread of `scheduler`.
    """

    def __init__(self, scheduler: Scheduler, signalnum: int) -> None:
        self._scheduler = scheduler
        self._signalnum = signalnum
        self._is_watched = False
        self._is_sent = False
        self._begin()

    def _begin(self) -> None:
        """Take the thread that runs now for the one that may pin the carrier."""
        self._pinning: Fiber | None = self._scheduler.running
        self._switches = self._scheduler.switches

    def watch(self) -> None:
        """Check the carrier after PINNED_AFTER seconds, on an OS thread of the runtime. Called on the carrier."""
        if self._is_watched:
            return
        self._is_watched = True
        is_known = allocate_lock()
        is_known.acquire()
        try:
            start_own_os_thread(self._look_later, (is_known,))
        except RuntimeError:
            # No OS thread can be started. The work waits for a switch; an exception here would end runtime code.
            self._is_watched = False
            return
        # A carrier that sees an unknown OS thread assumes that it could unpark something.
        is_known.acquire()

    def _look_later(self, is_known: LockType) -> None:
        own_os_threads.add(get_ident())
        ending_os_threads.discard(get_ident())
        is_known.release()
        never = allocate_lock()
        never.acquire()
        never.acquire(True, PINNED_AFTER)
        try:
            scheduler = self._scheduler
            # Work that is added from now on gets another check.
            self._is_watched = False
            if carriers.get(scheduler.ident) is scheduler and scheduler.switches == self._switches:
                self._is_sent = True
                # The C function: that of `signal` would see an ident as that of a virtual thread.
                _signal.pthread_kill(scheduler.ident, self._signalnum)
        finally:
            ending_os_threads.add(get_ident())
            own_os_threads.discard(get_ident())

    def has_come(self, signalnum: int) -> bool:
        """Return whether `signalnum` is the signal that was sent again; true once for each time."""
        if not self._is_sent or signalnum != self._signalnum:
            return False
        self._is_sent = False
        return True

    def still_pins(self) -> bool:
        """Return whether the same thread still runs, without a switch."""
        return self._scheduler.switches == self._switches and running() is self._pinning


class Overdue(_SentAgain):
    """An exception that the root should raise while `pinning`, the thread that runs, does not switch."""

    def __init__(self, scheduler: Scheduler, signalnum: int, error: BaseException) -> None:
        super().__init__(scheduler, signalnum)
        self.error = error


class Postponed(_SentAgain):
    """The work of a signal that has interrupted the runtime's own code, to be done at the next switch."""

    def __init__(self, scheduler: Scheduler, signalnum: int) -> None:
        super().__init__(scheduler, signalnum)
        self._work: deque[Callable[[], object]] = deque()

    def add(self, work: Callable[[], object]) -> None:
        """Call `work` between two switches; the next checkpoint switches. Called on the carrier."""
        self._work.append(work)
        self._scheduler.post(self.do)
        self._scheduler.slice_end = -inf
        self._begin()
        # The scheduler itself does what was posted before it waits.
        if running() is not None:
            self.watch()

    def add_again(self) -> None:
        """Check once more, after the signal that was sent again has interrupted the runtime's own code as well."""
        if self._work:
            self._begin()
            self.watch()

    def do(self) -> None:
        """Do what is left."""
        while self._work:
            self._work.popleft()()
