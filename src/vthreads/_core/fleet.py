"""The carriers of `run(carriers=N)`: the one of the root, and others on separate OS threads.

The others start before the function of the run, and end after all virtual threads have ended. The root of each of them
only waits for that end. The first carrier handles what concerns the run as a whole: its result, Ctrl-C, a deadlock.
This module does not depend on which thread runs where.
"""

from __future__ import annotations

from collections.abc import Iterable

from .carrier import Carrier
from .engine import Scheduler
from .originals import allocate_lock, get_ident
from .os_thread_kinds import ending_os_threads, own_os_threads
from .own_os_thread import signal_mask, start_own_os_thread, with_signal_mask
from .placement import Placement
from .wait_queue import WaitQueue, waiter_here

__all__ = ["Fleet"]


class Fleet:
    """The carriers of one run.

    Args:
        first: the carrier of the root, which runs.
        poller, patch: as for `run`.
    """

    def __init__(self, first: Carrier, poller: str | None, patch: bool) -> None:
        self._first = first
        self._poller = poller
        self._patch = patch
        self._others: list[_Other] = []

    def start(self, count: int) -> None:
        """Start the other carriers, `count` in all. If one fails, those that run are ended by `end`."""
        placement = Placement()
        placement.add(self._first.scheduler)
        for number in range(2, count + 1):
            other = _Other(self._first, f"carrier-{number}")
            scheduler = other.start(self._poller, self._patch)
            self._others.append(other)
            placement.add(scheduler)

    def end(self) -> None:
        """End the other carriers, and wait until they have ended. Ctrl-C ends the wait."""
        # In the child of a fork the others do not exist.
        if self._first.scheduler.placement is not None:
            for other in self._others:
                other.end()
            for other in self._others:
                other.join()


class _Other:
    """A carrier on a separate OS thread."""

    def __init__(self, first: Carrier, name: str) -> None:
        self._first = first
        self._name = name
        self._carrier: Carrier | None = None
        self._failure: BaseException | None = None
        # Released when the carrier runs, or has failed to start.
        self._has_started = allocate_lock()
        self._has_started.acquire()
        self._is_over = False
        self._joiners = WaitQueue()

    def start(self, poller: str | None, patch: bool) -> Scheduler:
        """Start the OS thread, and return the scheduler when it runs."""
        start_own_os_thread(self._live, (poller, patch, signal_mask()))
        self._has_started.acquire()
        if self._failure is not None:
            raise self._failure
        assert self._carrier is not None
        return self._carrier.scheduler

    def end(self) -> None:
        """Make the carrier end. Its virtual threads have ended."""
        if self._carrier is not None:
            self._carrier.root._unpark()

    def join(self) -> None:
        """Park until the OS thread runs no code of the program any more; an interrupt ends the wait."""
        root = waiter_here()
        self._joiners.add(root)
        if self._is_over and self._joiners.withdraw(root):
            return
        root._park_for_interrupts(lambda: self._joiners.withdraw(root))

    # --- on the OS thread

    def _live(self, poller: str | None, patch: bool, mask: Iterable[int]) -> None:
        # To the deadlock check of the first carrier this OS thread is not one that may unpark something.
        own_os_threads.add(get_ident())
        ending_os_threads.discard(get_ident())
        try:
            # Child processes of the virtual threads inherit the mask.
            with with_signal_mask(mask):
                self._run(poller, patch)
        finally:
            ending_os_threads.add(get_ident())
            own_os_threads.discard(get_ident())
            self._is_over = True
            self._joiners.unpark_all()

    def _run(self, poller: str | None, patch: bool) -> None:
        try:
            carrier = Carrier(poller, None, None, first=self._first)
            carrier.root.name = self._name
            carrier.start(patch)
            self._carrier = carrier
        except BaseException as error:  # noqa: BLE001  # raised by `start`
            self._failure = error
            return
        finally:
            self._has_started.release()
        try:
            carrier.root._park_through()
        finally:
            carrier.stop()
