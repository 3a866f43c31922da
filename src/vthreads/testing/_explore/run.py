"""A single run of the program under test, from its start until all its threads have ended, and its outcome.

Everything runs in a new runtime, on a virtual clock. A run fails if the function or one of its threads raises, if no
thread can continue, or if it does not end, with or without passing points. The first failure counts; then all threads
are cancelled.
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

from ..._core.clock import VirtualClock
from ..._core.deadlock import threads_below
from ..._core.engine import Scheduler, State
from ..._core.participants import Participant, dismiss_waiting, participate
from ..._core.runtime import current_thread, run
from ..._core.thread import VirtualThread
from ...errors import DeadlockError
from .deadlock import describe_deadlock
from .interleaving import START, Chooser, Interleaving, Place
from .operations import Operations
from .pinned import describe_pin
from .schedule import Points, Schedule
from .silence import Silence
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
        """Return whether `other` is the same failure: of the same kind, with the same type of exception."""
        return other is not None and (self.kind, type(self.error)) == (other.kind, type(other.error))


class Segment(NamedTuple):
    """A part of a run in which only one thread ran.

    Attributes:
        thread: name of the thread.
        place: where it stopped.
        why: why it stopped.
        chosen: whether the schedule required that.
        first, last: its first and last point; None without points.
    """

    thread: str
    place: Place | None
    why: str
    chosen: bool
    first: Place | None = None
    last: Place | None = None


class Trial:
    """A single run.

    Args:
        chooser: makes the decisions.
        operations, tracer: the sources of points.
        limit: most points that the run may pass.
        watchdog: detects a run that passes no points.
        watched: whether to record segments for a report.
    """

    def __init__(
        self,
        chooser: Chooser,
        operations: Operations,
        tracer: Tracer,
        limit: int,
        watchdog: Watchdog,
        watched: bool = False,
    ) -> None:
        self.failure: Failure | None = None
        self.segments: list[Segment] = []
        self.interleaving = Interleaving(chooser, self, limit)
        self._chooser = chooser
        self._operations = operations
        self._tracer = tracer
        self._limit = limit
        self._watchdog = watchdog
        self.watched = watched
        # First and last point of each thread since it began to run, or the point where it was stopped before.
        self._first: dict[VirtualThread, Place] = {}
        self._last: dict[VirtualThread, Place] = {}
        self._deadlocks = 0
        self._joining = False
        self._root: Any = None
        self._silence: Any = None

    def schedule(self, points: Points) -> Schedule:
        """Return the schedule of this run."""
        return self.interleaving.schedule(points)

    def run(self, fn: Callable[[], Any]) -> None:
        """Run `fn` once."""
        with _reproducible(self):
            try:
                run(self._run_root, fn, clock=_Clock(self), order=self.interleaving, patch=False)
            finally:
                self._operations.end()
                self._silence.end()
        self._chooser.ended(self.interleaving)

    def _run_root(self, fn: Callable[[], Any]) -> None:
        self._root = current_thread()
        self._silence = Silence(self._root._scheduler.ident)
        self.interleaving.begin(self._root)
        self._operations.begin(self.interleaving, self.watched)
        _explored.add(self._root._scheduler)
        self._tracer.start(self.interleaving.point, self._root._scheduler._yield_now)
        try:
            with self._watchdog.watching(self):
                fn()
                self._join()
        except KeyboardInterrupt:
            # It is for the user who waits for the exploration, not for the program.
            raise
        except BaseException as error:  # noqa: BLE001  # stored in `failure`, which explore reports
            self._fail("error", error)
        finally:
            self._silence.begin()
            self._end_all()
            self._tracer.stop()
            _explored.discard(self._root._scheduler)

    def _join(self) -> None:
        """Wait for the threads that `fn` left behind."""
        scheduler = self._root._scheduler
        self._joining = True
        while len(scheduler.background) or len(scheduler.threads):
            scheduler.background.join(self._root)
            self._dismiss()
            scheduler.threads.join(self._root)

    def _dismiss(self) -> bool:
        """End the idle workers of pools that were not shut down, because no thread can give them work any more."""
        return dismiss_waiting(self._root._scheduler)

    def _end_all(self) -> None:
        """Cancel the remaining threads, and wait for their end."""
        self.interleaving.abandon(spared=self._root)
        scheduler = self._root._scheduler
        groups = scheduler.background, scheduler.threads, scheduler.daemons
        for group in groups:
            group.cancel("the run that explore makes is over")
        while any(len(group) for group in groups):
            for group in groups:
                try:
                    group.join(self._root)
                except Exception as error:  # noqa: BLE001  # stored in `failure`, unless there is an earlier one
                    self._fail("error", error)

    # --- failing

    def _fail(self, kind: Kind, error: BaseException, thread: str | None = None) -> None:
        if self.failure is None:
            self.failure = Failure(kind, error, thread or self._root.name)

    def _is_here(self) -> bool:
        """Return whether the caller is a thread of this run."""
        return self._operations.run is self.interleaving and self._operations.here() is not None

    def thread_failed(self, details: Any) -> None:
        """Handle an exception that ended a thread (called by `threading.excepthook`)."""
        # `sys.exit` ends only its own thread; the standard library does not report it either.
        if not self.interleaving.abandoned and details.exc_type is not SystemExit:
            self._fail("error in a thread", details.exc_value, details.thread and details.thread.name)

    def deadlocked(self) -> None:
        """Handle that no thread can continue (called inside the scheduler)."""
        if self._joining and not self.interleaving.abandoned and self._dismiss():
            # The end of the last work has started new workers, so threads can continue.
            return
        self._deadlocks += 1
        parked = [t for t in threads_below(self._root._scheduler) if t.state is State.PARKED]
        error = DeadlockError(describe_deadlock(parked, self._operations))
        if not self.interleaving.abandoned:
            self._fail("deadlock", error)
        self._abandon(error)
        if self._deadlocks > 1:
            # Some wait where no exception can be raised: unpark them as if their wait had succeeded.
            for thread in parked:
                thread._unpark()

    def too_long(self) -> None:
        """Handle that the run has passed too many points."""
        error = RuntimeError(f"the run passed {self._limit} points and has not ended; threads may wait in a loop")
        self._fail("does not end", error)
        thread = self._operations.here()
        if self.watched and thread is not None:
            place = self._operations.place_of_program(sys._getframe(1))
            self.segments.append(Segment(thread.name, place, "is still running", False))
        self._abandon(error)

    def pinned(self, frame: FrameType | None) -> str:
        """Handle that the run has passed no point for too long (called on the OS thread of the watchdog)."""
        scheduler = self._root._scheduler
        thread = scheduler.running
        error = RuntimeError(describe_pin(thread, frame, self._operations))
        self._fail("pinned", error)
        if self.watched and thread is not None and not self.interleaving.abandoned:
            self.segments.append(
                Segment(thread.name, self._operations.place_of_program(frame), "does not leave", False)
            )
        self._silence.begin()
        self.interleaving.abandon()
        if thread is not self._root:
            # In the root, the exception raised there also ends the other threads.
            scheduler.post(self._abandon, error)
        return str(error)

    def _abandon(self, error: BaseException) -> None:
        self._silence.begin()
        self.interleaving.abandon()
        scheduler = self._root._scheduler
        self._root._interrupt_with(error, polite=False)
        for group in (scheduler.background, scheduler.threads, scheduler.daemons):
            group.cancel("the run that explore makes has failed")

    # --- recording

    def passes(self, thread: VirtualThread, place: Place) -> None:
        """Record a point of a thread in the program."""
        if self._operations.user_code.has_run(place.code):
            self._first.setdefault(thread, place)
            self._last[thread] = place

    def changes(self, before: VirtualThread, place: Place | None, after: VirtualThread, chosen: bool) -> None:
        """Record a segment, if the run is watched."""
        if self.watched and not self.interleaving.abandoned:
            why = "is stopped" if place is not None else "ends" if before.state is State.ENDED else "waits"
            points = self._first.pop(before, None), self._last.pop(before, None)
            if place is None:
                place = self._operations.place_of_program(sys._getframe(1))
            else:
                # The point before which it was stopped comes first when it continues.
                self.passes(before, place)
            self.segments.append(Segment(before.name, None if place == START else place, why, chosen, *points))


class _Clock(VirtualClock):
    """A clock that jumps, and waits only for OS threads that work for a thread of this run."""

    def __init__(self, trial: Trial) -> None:
        super().__init__(patch_time=True)
        self._trial = trial

    def patience(self, due: float, outside: bool) -> float | None:
        if due < inf or outside:
            return super().patience(due, outside)
        self._trial.deadlocked()
        return 0.0


# The schedulers that an exploration runs now.
_explored: set[Scheduler] = set()


def _is_explored(scheduler: Scheduler) -> bool:
    # If something may come from outside, the scheduler leaves the deadlock to its clock, and this clock decides it.
    return scheduler in _explored


participate(__name__, Participant(may_unpark=_is_explored))


@contextmanager
def _reproducible(trial: Trial) -> Iterator[None]:
    """Make runs reproducible: no garbage collection during a run; the same random numbers and names in each."""
    hook, collects, state = threading.excepthook, gc.isenabled(), random.getstate()
    names = threading._counter  # type: ignore[attr-defined]  # not in the type stubs
    pools = ThreadPoolExecutor._counter  # type: ignore[attr-defined]  # likewise
    gc.disable()
    random.seed(0)
    threading._counter = count(1).__next__  # type: ignore[attr-defined]  # likewise
    ThreadPoolExecutor._counter = count().__next__  # type: ignore[attr-defined]  # likewise

    def excepthook(details: Any) -> None:
        (trial.thread_failed if trial._is_here() else hook)(details)

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
