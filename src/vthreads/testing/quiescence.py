"""Waiting until everybody else on the carrier is parked.

The scheduler's observer tells of every thread that becomes ready or runs. A wait ended with nobody told of is a wait in
which all others stayed parked. Those who wait here do not count, or two of them would wait for each other for ever.
"""

from __future__ import annotations

from typing import Any

from .._core.current import started_here
from .._core.engine import Scheduler
from .._core.thread import VirtualThread
from .overhearing import Overhearing

__all__ = ["wait_all_parked"]


class _Watch(Overhearing):
    """Notes what others than `waiting` do."""

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__(scheduler)
        self.waiting: set[Any] = set()
        self._now = scheduler.clock.now
        # How often somebody was active, and when last.
        self.activity = 0
        self.active_at = self._now()

    def note(self, fiber: Any) -> None:
        if fiber not in self.waiting:
            self.activity += 1
            self.active_at = self._now()

    def readied(self, fiber: Any) -> None:
        self.note(fiber)
        super().readied(fiber)

    def runs(self, fiber: Any) -> None:
        self.note(fiber)
        super().runs(fiber)


# By scheduler, while somebody waits.
_watches: dict[Scheduler, _Watch] = {}


def wait_all_parked(cushion: float = 0.0) -> None:
    """Park until all other virtual threads of this carrier are parked. A checkpoint; starts the runtime.

    A thread whose descriptor is ready already, or whose timer is due, is not taken for parked; one that sleeps is. Of
    several that wait in here each comes back by itself, when the one before has parked again. Modelled on Trio's
    `wait_all_tasks_blocked`.

    Args:
        cushion: seconds on the runtime's clock for which they have to stay parked. Virtual time passes meanwhile.

    Raises:
        ValueError: `cushion` is negative or NaN.
    """
    if not cushion >= 0:
        raise ValueError(f"wait_all_parked({cushion!r}): give 0 or more seconds")
    thread = started_here()
    thread.check()
    scheduler = thread.scheduler
    watch = _watches.get(scheduler)
    if watch is None:
        watch = _watches[scheduler] = _Watch(scheduler)
    watch.waiting.add(thread)
    try:
        _wait_quiet(thread, watch, cushion)
    finally:
        watch.waiting.discard(thread)
        # To the others who wait, this thread runs again.
        watch.note(thread)
        if not watch.waiting:
            del _watches[scheduler]
            watch.leave()


def _wait_quiet(thread: VirtualThread, watch: _Watch, cushion: float) -> None:
    now = thread.scheduler.clock.now
    until, before = now() + cushion, -1
    while watch.activity != before:
        before = watch.activity
        # Even of no length, the wait looks at descriptors and timers when nobody is ready any more.
        thread.park(None, max(0.0, until - now()))
        until = watch.active_at + cushion
