"""Wait until all other virtual threads of the run are parked.

The scheduler's observer reports every thread that becomes ready or runs. If a wait ends without such a report, all
others stayed parked. Threads that wait here do not count, or two of them would wait for each other forever.

With several carriers, a virtual thread on each other carrier waits in the same way, and answers with the number of
reports so far. If two rounds have the same answers, all threads were parked between the rounds: each carrier was quiet
once before that moment and once after it, with no report in between, and a message that was under way would have been
reported.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .._core.arguments import checked_span
from .._core.blocks import block
from .._core.cancel import CancelScope
from .._core.current import started_here
from .._core.engine import Scheduler
from .._core.originals import Section
from .._core.placement import schedulers_beside
from .._core.thread import VirtualThread
from .._sync.queues import SimpleQueue
from ._observer import FiberObserver

__all__ = ["wait_all_parked"]


class _Watch(FiberObserver):
    """Records activity of threads other than `waiting`. Changed on the carrier of `scheduler` only."""

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__(scheduler)
        self.waiting: set[Any] = set()
        self._now = scheduler.clock.now
        # Number of activities, and time of the last one.
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


# By scheduler, while a thread waits.
_watches: dict[Scheduler, _Watch] = {}
# Guards the decision that all are parked: after it the thread that has decided counts as running.
_deciding = Section()


def wait_all_parked(cushion: float = 0.0) -> None:
    """Park until all other virtual threads of the run are parked, on all its carriers. A checkpoint.

    Starts the runtime. A thread whose descriptor is ready, or whose timer is due, does not count as parked; a sleeping
    thread does. A thread that pins its carrier is not parked. If several threads wait here, they return one by one,
    each after the previous one has parked again. Modelled on Trio's `wait_all_tasks_blocked`.

    Args:
        cushion: seconds on the runtime's clock for which they must stay parked. Virtual time passes meanwhile.

    Raises:
        ValueError: `cushion` is negative or NaN.
    """
    cushion = checked_span(cushion, "cushion")
    thread = started_here()
    thread._check()
    here = thread._scheduler
    others = [scheduler for scheduler in schedulers_beside(here) if scheduler is not here]
    with _watching(thread) as watch:
        if others:
            _wait_all_quiet(thread, watch, others, cushion)
        else:
            _wait_quiet(thread, watch, cushion)


@block
def _watching(thread: VirtualThread) -> Iterator[_Watch]:
    """Return a block in which the activity on the carrier of `thread`, except that of `thread`, is recorded."""
    scheduler = thread._scheduler
    watch = _watches.get(scheduler)
    if watch is None:
        watch = _watches[scheduler] = _Watch(scheduler)
    watch.waiting.add(thread)
    try:
        yield watch
    finally:
        watch.waiting.discard(thread)
        # For the other threads that wait here, this thread now counts as running.
        watch.note(thread)
        if not watch.waiting:
            del _watches[scheduler]
            watch.leave()


def _wait_quiet(thread: VirtualThread, watch: _Watch, cushion: float) -> None:
    """Park until all other threads of this carrier were parked for `cushion` seconds."""
    now = thread._scheduler.clock.now
    until, before = now() + cushion, -1
    while watch.activity != before:
        before = watch.activity
        # Even a wait of length 0 polls descriptors and timers when no thread is ready.
        thread._park(None, max(0.0, until - now()))
        until = watch.active_at + cushion


# --- several carriers


class _RemoteWait:
    """A virtual thread on another carrier that waits there until the others of that carrier are parked."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._requests: SimpleQueue[float | None] = SimpleQueue()
        self._answers: SimpleQueue[tuple[_Watch, int]] = SimpleQueue()
        self._thread: VirtualThread = scheduler.background.spawn(self._live).thread

    def _live(self) -> None:
        thread = started_here()
        # Shielded, because the thread that requests the waits ends it, and would not notice a cancellation of this one.
        with CancelScope(shield=True), _watching(thread) as watch:
            while (cushion := self._requests.get()) is not None:
                _wait_quiet(thread, watch, cushion)
                self._answers.put((watch, watch.activity))

    def begin(self, cushion: float) -> None:
        """Begin to wait."""
        self._requests.put(cushion)

    def answer(self) -> tuple[_Watch, int]:
        """Park until the wait has ended; return the watch of that carrier, with its activity at that moment."""
        return self._answers.get()

    def end(self) -> None:
        """Make the thread end."""
        self._requests.put(None)

    def join(self) -> None:
        """Park until the thread has ended."""
        self._thread.join()


def _wait_all_quiet(thread: VirtualThread, own: _Watch, others: list[Scheduler], cushion: float) -> None:
    """Park until all other threads of all carriers were parked at the same moment."""
    waits = [_RemoteWait(scheduler) for scheduler in others]
    try:
        before: list[tuple[_Watch, int]] = []
        is_quiet = False
        while not is_quiet:
            for wait in waits:
                wait.begin(cushion)
            _wait_quiet(thread, own, cushion)
            answers = [(own, own.activity), *[wait.answer() for wait in waits]]
            with _deciding:
                # Another thread that waits may have decided since its carrier has answered.
                is_quiet = answers == before and all(watch.activity == activity for watch, activity in answers)
                if is_quiet:
                    own.waiting.discard(thread)
                    own.note(thread)
            before = answers
    finally:
        for wait in waits:
            wait.end()
    # Otherwise the caller could still find them among the threads of the run.
    for wait in waits:
        wait.join()
