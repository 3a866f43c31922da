"""A run in which a chooser makes every decision: the run queue of the scheduler, and the points between switches.

A thread reaches a decision in two ways. When a thread waits or ends, the scheduler needs the next one; then switching
is free. When instrumented code passes a point, another thread may be chosen, which preempts the running one. This
module does not depend on where points come from, how a chooser chooses, or what counts as a failure of the program.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, NamedTuple, Protocol

from ..._core.current import running
from ..._core.engine import State
from ..._core.thread import VirtualThread
from .schedule import Points, Schedule, Switch
from .user_code import leaves_a_block

__all__ = ["START", "Abandoned", "Chooser", "Interleaving", "Observer", "Place"]


RUNNING = State.RUNNING


class Place(NamedTuple):
    """The position of a thread: an instruction of some code, or, if only that is known, a line."""

    code: CodeType
    offset: int | None = None
    line: int | None = None


def _start() -> None:
    """Stands for the position of a thread that has not started."""


START = Place(_start.__code__)


class Chooser(Protocol):
    """Decides which thread runs."""

    def choose(self, decision: int, run: Interleaving, free: bool) -> int:
        """Return an index into `run.candidates()`; 0 is the default. `free`: no thread would be preempted."""

    def ended(self, run: Interleaving) -> None:
        """Called when the run is over."""


class Observer(Protocol):
    """Receives the events of a run.

    Attributes:
        watched: whether `passes` must be called for each point, which takes time.
    """

    watched: bool

    def passes(self, thread: VirtualThread, place: Place) -> None:
        """Called when `thread` is at a point."""

    def changes(self, before: VirtualThread, place: Place | None, after: VirtualThread, chosen: bool) -> None:
        """Called when `after` runs next; `place` is None unless `before` was preempted there."""

    def too_long(self) -> None:
        """Called when the limit of points was passed. Must abandon the run."""


class Abandoned(BaseException):
    """Ends a thread of a run that is over, if the thread does not end by its cancellation."""


class Interleaving:
    """The run queue and order of a scheduler, in which a chooser makes the decisions.

    Args:
        chooser: makes the decisions.
        observer: receives the events.
        limit: number of points after which the run counts as endless.
    """

    def __init__(self, chooser: Chooser, observer: Observer, limit: int) -> None:
        self.scheduler: Any = None
        self.passed = 0
        self.decisions = 0
        self.switches: list[Switch] = []
        self.threads: dict[VirtualThread, int] = {}
        # Set when the outcome is known: no more decisions, all threads must end.
        self.abandoned = False
        # The threads that could run, besides the running one.
        self.ready: list[VirtualThread] = []
        # Threads that are starting another: the new thread runs next, and the decision is made at its start.
        self.starting: set[VirtualThread] = set()
        self._chooser = chooser
        self._observer = observer
        self._limit = limit
        self._candidates: list[VirtualThread] = []
        self._current: Any = None
        self._chosen: VirtualThread | None = None
        self._yielded: VirtualThread | None = None
        self._spared: VirtualThread | None = None

    def begin(self, root: VirtualThread) -> None:
        """Attach to the scheduler on which `root` runs."""
        self.scheduler = root._scheduler
        self._current = root
        self.number(root)

    def number(self, thread: VirtualThread) -> int:
        """Return the number of a thread; it gets one when it is first seen."""
        return self.threads.setdefault(thread, len(self.threads))

    def candidates(self) -> list[int]:
        """Return the numbers of the threads that could run now."""
        return [self.threads[thread] for thread in self._candidates]

    @property
    def yielded(self) -> int | None:
        """The number of the thread that has just given way to others, if one has."""
        return None if self._yielded is None else self.threads[self._yielded]

    def abandon(self, spared: VirtualThread | None = None) -> None:
        """Make no more decisions, and end all cancelled threads at their next points, except `spared`."""
        self.abandoned = True
        self._spared = spared

    def schedule(self, points: Points) -> Schedule:
        """Return the decisions so far as a schedule."""
        return Schedule(points, tuple(self.switches))

    # --- the order and run queue of the scheduler

    def run_queue(self) -> Interleaving:
        """Return the run queue, which is this object too (called by the scheduler)."""
        return self

    def __len__(self) -> int:
        return len(self.ready)

    def append(self, thread: VirtualThread, /) -> None:
        """Add a thread that has become ready."""
        self.number(thread)
        if self.scheduler is not None and self.scheduler.running is thread:
            self._yielded = thread
        self.ready.append(thread)

    def popleft(self) -> VirtualThread:
        """Return the thread that runs next."""
        chosen, self._chosen = self._chosen, None
        if chosen is None or chosen not in self.ready:
            chosen = self._next()
        self.ready.remove(chosen)
        self._current = chosen
        self._yielded = None
        return chosen

    def _next(self) -> VirtualThread:
        """Choose the next thread after one waits, yields or ends."""
        self._pass()
        if self._current in self.starting:
            self._candidates = self.ready[-1:]
        else:
            # A thread that yields wants others to run. If it were a candidate, it could yield forever.
            self._candidates = [thread for thread in self.ready if thread is not self._yielded] or self.ready
        default = self._candidates[0]
        chosen = default if self.abandoned or len(self._candidates) == 1 else self._decide(True)
        if chosen is not self._current:
            self._observer.changes(self._current, None, chosen, chosen is not default)
        return chosen

    # --- points

    def point(
        self, code: CodeType, offset: int | None, line: int | None, switch: Callable[[], None] | None = None
    ) -> None:
        """Let another thread run, if one is chosen. Does nothing on other carriers and inside the scheduler.

        Args:
            code, offset, line: the position of the running thread.
            switch: yields, if the caller must do something around it; None: yields by the scheduler.
        """
        thread = running()
        if thread is None or thread._scheduler is not self.scheduler:
            return
        self._pass()
        if self._observer.watched:
            self._observer.passes(thread, Place(code, offset, line))
        # A signal handler runs without having been ready, so it may have no number yet.
        self.number(thread)
        # A thread that ends passes points after its state is ENDED, when it cannot switch any more: do not preempt it.
        if self.ready and not self.abandoned and thread.state is RUNNING:
            self._candidates = [thread, *self.ready]
            chosen = self._decide(False)
            if chosen is not thread:
                self._chosen = chosen
                self._observer.changes(thread, Place(code, offset, line), chosen, True)
                self._preempt(switch or self.scheduler._yield_now)
        if self.abandoned:
            self._give_up(thread, code)

    def _preempt(self, switch: Callable[[], None]) -> None:
        """Run the chosen thread, and return when this one continues.

        Up to its first park, a signal handler is part of the run of the interrupted thread. The scheduler would resume
        that thread next, so it must be hidden while the handler is stopped.
        """
        interrupted: list[Any] = self.scheduler._spawners
        kept = interrupted[:]
        interrupted.clear()
        try:
            switch()
        finally:
            interrupted[:0] = kept

    def _decide(self, free: bool) -> VirtualThread:
        index = self._chooser.choose(self.decisions, self, free)
        chosen = self._candidates[index]
        if index:
            self.switches.append((self.decisions, self.threads[chosen]))
        self.decisions += 1
        return chosen

    def _pass(self) -> None:
        self.passed += 1
        if self.passed > self._limit and not self.abandoned:
            self._observer.too_long()

    def _give_up(self, thread: VirtualThread, code: CodeType) -> None:
        if thread is self._spared:
            return
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_code is not code:
            frame = frame.f_back
        # The end of a block is left to its `__exit__`: a lock that outlives the run would stay locked otherwise.
        if thread._pending and (frame is None or not leaves_a_block(frame)):
            thread._raise_due()
        if self.passed > 2 * self._limit:
            raise Abandoned(f"{thread!r} continues after its cancellation")
