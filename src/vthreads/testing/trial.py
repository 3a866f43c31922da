"""One run of the program under test, from its start until all its threads have ended, and what came of it.

Everything is in a runtime of its own, on a virtual clock. A run fails when the function or one of its threads raises,
when nobody can go on any more, or when it does not end, with points or without. What fails first counts; then everybody
is cancelled.
"""

from __future__ import annotations

import gc
import random
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from math import inf
from types import FrameType
from typing import Any, Literal, NamedTuple

from .._core.clock import VirtualClock
from .._core.deadlock import threads_below
from .._core.engine import State
from .._core.runtime import current_thread, outside_sources, run
from .._core.thread import VirtualThread
from ..errors import DeadlockError
from .interleaving import START, Chooser, Interleaving, Place
from .operations import Meetings
from .pins import describe_pin
from .schedule import Points, Schedule
from .standstill import describe_standstill
from .tracing import Tracer
from .watchdog import Watchdog

__all__ = ["Failure", "Segment", "Trial"]

Kind = Literal["error", "error in a thread", "deadlock", "does not end", "pinned"]


class Failure(NamedTuple):
    """How a run failed."""

    kind: Kind
    error: BaseException
    thread: str

    def is_like(self, other: Failure | None) -> bool:
        """Whether it is the same failure, as far as the kind of it tells."""
        return other is not None and (self.kind, type(self.error)) == (other.kind, type(other.error))


class Segment(NamedTuple):
    """A part of a run in which one thread ran.

    Attributes:
        thread: who.
        place: until where.
        why: it stopped there.
        chosen: whether the schedule says so.
        first, last: of its points; None without any.
    """

    thread: str
    place: Place | None
    why: str
    chosen: bool
    first: Place | None = None
    last: Place | None = None


class Trial:
    """One run.

    Args:
        chooser: makes the decisions.
        meetings, tracer: where its points come from.
        limit: how many points it may pass.
        watchdog: tells when it passes none.
        watched: whether to keep what ran when, for a report.
    """

    def __init__(
        self,
        chooser: Chooser,
        meetings: Meetings,
        tracer: Tracer,
        limit: int,
        watchdog: Watchdog,
        watched: bool = False,
    ) -> None:
        self.failure: Failure | None = None
        self.segments: list[Segment] = []
        self.interleaving = Interleaving(chooser, self, limit)
        self._chooser = chooser
        self._meetings = meetings
        self._tracer = tracer
        self._limit = limit
        self._watchdog = watchdog
        self.watched = watched
        # The points that each thread has passed since it began to run, and where it was stopped before.
        self._first: dict[VirtualThread, Place] = {}
        self._last: dict[VirtualThread, Place] = {}
        self._standstills = 0
        self._root: Any = None

    def schedule(self, points: Points) -> Schedule:
        """The schedule that was run."""
        return self.interleaving.schedule(points)

    def run(self, fn: Callable[[], Any]) -> None:
        """Run `fn`, once."""
        with _undisturbed(self):
            try:
                run(self._run_root, fn, clock=_Clock(self), order=self.interleaving, patch=False)
            finally:
                self._meetings.end()
        self._chooser.ended(self.interleaving)

    def _run_root(self, fn: Callable[[], Any]) -> None:
        self._root = current_thread()
        self.interleaving.begin(self._root)
        self._meetings.begin(self.interleaving, self.watched)
        outside_sources.append(self._is_own_scheduler)
        self._tracer.start(self.interleaving.point, self._root.scheduler.yield_now)
        try:
            with self._watchdog.watching(self):
                fn()
                self._join()
        except KeyboardInterrupt:
            # Of whoever waits for the exploration, and not of the program.
            raise
        except BaseException as error:  # noqa: BLE001  # kept in `failure`, which is what explore reports
            self._fail("error", error)
        finally:
            self._end_all()
            self._tracer.stop()
            outside_sources.remove(self._is_own_scheduler)

    def _join(self) -> None:
        """Wait for the threads that `fn` left behind."""
        scheduler = self._root.scheduler
        while len(scheduler.background) or len(scheduler.threads):
            scheduler.background.join(self._root)
            scheduler.threads.join(self._root)

    def _end_all(self) -> None:
        """Cancel who is left, and wait for that."""
        self.interleaving.abandon(spared=self._root)
        scheduler = self._root.scheduler
        groups = scheduler.background, scheduler.threads, scheduler.daemons
        for group in groups:
            group.cancel("the run that explore makes is over")
        while any(len(group) for group in groups):
            for group in groups:
                try:
                    group.join(self._root)
                except Exception as error:  # noqa: BLE001  # kept in `failure`, unless something failed before
                    self._fail("error", error)

    def _is_own_scheduler(self, scheduler: Any) -> bool:
        # Told that somebody might come from outside, the scheduler asks the clock, which knows better, and at once.
        return scheduler is self._root.scheduler

    # --- failing

    def _fail(self, kind: Kind, error: BaseException, thread: str | None = None) -> None:
        if self.failure is None:
            self.failure = Failure(kind, error, thread or self._root.name)

    def is_here(self) -> bool:
        """Whether a thread of this run asks."""
        return self._meetings.run is self.interleaving and self._meetings.here() is not None

    def thread_failed(self, details: Any) -> None:
        """Hear of an exception that ended a thread (called by `threading.excepthook`)."""
        # By `sys.exit` a thread ends itself, and nothing else: the standard library does not tell of it either.
        if not self.interleaving.abandoned and details.exc_type is not SystemExit:
            self._fail("error in a thread", details.exc_value, details.thread and details.thread.name)

    def stand_still(self) -> None:
        """Hear that nobody can go on (called inside the scheduler)."""
        self._standstills += 1
        parked = [t for t in threads_below(self._root.scheduler) if t.state is State.PARKED]
        error = DeadlockError(describe_standstill(parked, self._meetings))
        if not self.interleaving.abandoned:
            self._fail("deadlock", error)
        self._abandon(error)
        if self._standstills > 1:
            # Some wait where nothing can be raised: they go on as if they had got what they wait for.
            for thread in parked:
                thread.unpark()

    def too_long(self) -> None:
        """Hear that the run has passed as many points as it may."""
        error = RuntimeError(f"the run passed {self._limit} points and has not ended; threads may wait in a loop")
        self._fail("does not end", error)
        thread = self._meetings.here()
        if self.watched and thread is not None:
            place = self._meetings.place_of_program(sys._getframe(1))
            self.segments.append(Segment(thread.name, place, "is still running", False))
        self._abandon(error)

    def pinned(self, frame: FrameType | None) -> str:
        """Hear that the run has passed no point for too long (called on the OS thread that looks after it)."""
        scheduler = self._root.scheduler
        thread = scheduler.running
        error = RuntimeError(describe_pin(thread, frame, self._meetings))
        self._fail("pinned", error)
        if self.watched and thread is not None and not self.interleaving.abandoned:
            self.segments.append(Segment(thread.name, self._meetings.place_of_program(frame), "does not leave", False))
        self.interleaving.abandon()
        if thread is not self._root:
            # In the root, what is raised there ends the others, too.
            scheduler.post(self._abandon, error)
        return str(error)

    def _abandon(self, error: BaseException) -> None:
        self.interleaving.abandon()
        scheduler = self._root.scheduler
        self._root.interrupt_with(error, polite=False)
        for group in (scheduler.background, scheduler.threads, scheduler.daemons):
            group.cancel("the run that explore makes has failed")

    # --- watching

    def passes(self, thread: VirtualThread, place: Place) -> None:
        """Keep where in the program a thread comes by."""
        if self._meetings.user_code.has_run(place.code):
            self._first.setdefault(thread, place)
            self._last[thread] = place

    def changes(self, before: VirtualThread, place: Place | None, after: VirtualThread, chosen: bool) -> None:
        """Keep what ran, if it is to be told."""
        if self.watched and not self.interleaving.abandoned:
            why = "is stopped" if place is not None else "ends" if before.state is State.ENDED else "waits"
            points = self._first.pop(before, None), self._last.pop(before, None)
            if place is None:
                place = self._meetings.place_of_program(sys._getframe(1))
            else:
                # What it was stopped before comes first when it goes on.
                self.passes(before, place)
            self.segments.append(Segment(before.name, None if place == START else place, why, chosen, *points))


class _Clock(VirtualClock):
    """Time that jumps, and never waits for anybody but those who work for a thread of this run."""

    def __init__(self, trial: Trial) -> None:
        super().__init__(patch_time=True)
        self._trial = trial

    def patience(self, due: float, outside: bool) -> float | None:
        if due < inf or outside:
            return super().patience(due, outside)
        self._trial.stand_still()
        return 0.0


@contextmanager
def _undisturbed(trial: Trial) -> Iterator[None]:
    """The same from one run to the next: no garbage collection in the midst, the same random numbers and names."""
    hook, collects, state = threading.excepthook, gc.isenabled(), random.getstate()
    names = threading._counter  # type: ignore[attr-defined]  # not in the type stubs
    pools = ThreadPoolExecutor._counter  # type: ignore[attr-defined]  # likewise
    gc.disable()
    random.seed(0)
    threading._counter = count(1).__next__  # type: ignore[attr-defined]  # likewise
    ThreadPoolExecutor._counter = count().__next__  # type: ignore[attr-defined]  # likewise

    def excepthook(details: Any) -> None:
        (trial.thread_failed if trial.is_here() else hook)(details)

    threading.excepthook = excepthook
    try:
        yield
    finally:
        threading.excepthook = hook
        threading._counter = names  # type: ignore[attr-defined]  # likewise
        ThreadPoolExecutor._counter = pools  # type: ignore[attr-defined]  # likewise
        random.setstate(state)
        if collects:
            gc.enable()
