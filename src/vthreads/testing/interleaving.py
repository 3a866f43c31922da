"""One run whose every decision is made by a chooser: the run queue of the scheduler, and the points in between.

A thread comes here in two ways. The scheduler asks for the next one when a thread waits or ends; then changing over is
free. Instrumented code passes a point; then whoever is chosen instead of the running thread preempts it. This file does
not know where points come from, how a chooser chooses, or what counts as a failure of the program.
"""

from __future__ import annotations

from collections.abc import Callable
from types import CodeType
from typing import Any, NamedTuple, Protocol

from .._core.current import running
from .._core.engine import State
from .._core.thread import VirtualThread
from .schedule import Points, Schedule, Switch

__all__ = ["START", "Abandoned", "Chooser", "Interleaving", "Observer", "Place"]


RUNNING = State.RUNNING


class Place(NamedTuple):
    """Where a thread stands: at an instruction of some code, or, if only that is known, at a line."""

    code: CodeType
    offset: int | None = None
    line: int | None = None


def _start() -> None:
    """Its code stands for the place of a thread that has not begun."""


START = Place(_start.__code__)


class Chooser(Protocol):
    """Decides who runs."""

    def choose(self, decision: int, run: Interleaving, free: bool) -> int:
        """Choose one of `run.candidates()` by its index; 0 is who runs by itself. `free`: nobody is preempted."""

    def ended(self, run: Interleaving) -> None:
        """Hear that the run is over."""


class Observer(Protocol):
    """Is told of a run while it goes on.

    Attributes:
        watched: whether it wants to hear of each point, which takes time.
    """

    watched: bool

    def passes(self, thread: VirtualThread, place: Place) -> None:
        """Hear that `thread` is at a point."""

    def changes(self, before: VirtualThread, place: Place | None, after: VirtualThread, chosen: bool) -> None:
        """Hear that `after` runs now; `place` is None unless `before` was preempted there."""

    def too_long(self) -> None:
        """Hear that the limit of points was passed. It has to abandon the run."""


class Abandoned(BaseException):
    """Ends a thread of a run that is over and that would not end by its cancellation."""


class Interleaving:
    """The run queue of one scheduler, and its order, whose decisions a chooser makes.

    Args:
        chooser: makes them.
        observer: is told of what happens.
        limit: how many points may be passed before the run counts as one that does not end.
    """

    def __init__(self, chooser: Chooser, observer: Observer, limit: int) -> None:
        self.scheduler: Any = None
        self.passed = 0
        self.decisions = 0
        self.switches: list[Switch] = []
        self.threads: dict[VirtualThread, int] = {}
        # Set when the outcome is known: no more decisions, everybody is to end.
        self.abandoned = False
        # Who could run, besides the running thread.
        self.ready: list[VirtualThread] = []
        # Those who start a thread: it comes next, and whether it goes on is decided where it begins.
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
        """Take over the scheduler on which `root` runs."""
        self.scheduler = root.scheduler
        self._current = root
        self.number(root)

    def number(self, thread: VirtualThread) -> int:
        """The number of a thread, which it is given when it is first seen."""
        return self.threads.setdefault(thread, len(self.threads))

    def candidates(self) -> list[int]:
        """The numbers of those who could run now."""
        return [self.threads[thread] for thread in self._candidates]

    @property
    def yielded(self) -> int | None:
        """The number of the thread that has just let the others run, if one has."""
        return None if self._yielded is None else self.threads[self._yielded]

    def abandon(self, spared: VirtualThread | None = None) -> None:
        """Decide nothing any more, and end at their next points all that were cancelled, except `spared`."""
        self.abandoned = True
        self._spared = spared

    def schedule(self, points: Points) -> Schedule:
        """What was chosen so far."""
        return Schedule(points, tuple(self.switches))

    # --- the order and run queue of the scheduler

    def run_queue(self) -> Interleaving:
        """Be the order as well as the queue (called by the scheduler)."""
        return self

    def __len__(self) -> int:
        return len(self.ready)

    def append(self, thread: VirtualThread, /) -> None:
        """Hear that `thread` could run."""
        self.number(thread)
        if self.scheduler is not None and self.scheduler.running is thread:
            self._yielded = thread
        self.ready.append(thread)

    def popleft(self) -> VirtualThread:
        """Say who runs next."""
        chosen, self._chosen = self._chosen, None
        if chosen is None or chosen not in self.ready:
            chosen = self._next()
        self.ready.remove(chosen)
        self._current = chosen
        self._yielded = None
        return chosen

    def _next(self) -> VirtualThread:
        """Somebody waits, yields or ends: who is next?"""
        self._pass()
        if self._current in self.starting:
            self._candidates = self.ready[-1:]
        else:
            # Who yields wants others to run; asked again at once it would do so for ever.
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
        """Let another thread run, if one is chosen. Nothing happens on other carriers and inside the scheduler.

        Args:
            code, offset, line: the place of the running thread.
            switch: yields, for whoever has to do something about it; None: the scheduler does.
        """
        thread = running()
        if thread is None or thread.scheduler is not self.scheduler:
            return
        self._pass()
        if self._observer.watched:
            self._observer.passes(thread, Place(code, offset, line))
        # One that ends gives back what it had when it counts as ended.
        if self.ready and not self.abandoned and thread.state is RUNNING:
            self._candidates = [thread, *self.ready]
            chosen = self._decide(False)
            if chosen is not thread:
                self._chosen = chosen
                self._observer.changes(thread, Place(code, offset, line), chosen, True)
                (switch or self.scheduler.yield_now)()
        if self.abandoned:
            self._give_up(thread)

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

    def _give_up(self, thread: VirtualThread) -> None:
        if thread is self._spared:
            return
        if thread.pending:
            thread.raise_due()
        if self.passed > 2 * self._limit:
            raise Abandoned(f"{thread!r} goes on after its cancellation")
