"""Run a question on a carrier in slices, between its switches, so that its threads continue meanwhile.

The question is a generator that yields wherever it may be interrupted. After each slice it joins the run queue like a
thread, so every ready thread runs once before the next slice. If a carrier does not switch, the question runs on the
calling OS thread instead. This module does not depend on the question.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from time import monotonic
from typing import Generic, TypeVar

from .._core.engine import Fiber, Scheduler
from .._core.originals import allocate_lock, get_ident

__all__ = ["ask", "finish"]

T = TypeVar("T")
Steps = Generator[None, None, T]

# Seconds that a carrier spends on a question before it runs its threads.
SLICE = 0.001
# Number of patience periods to wait for a carrier that has begun a slice and does not end it.
PATIENCES = 10


def ask(scheduler: Scheduler, question: Callable[[], Steps[T]], patience: float) -> tuple[T, bool]:
    """Return the answer of `question()` and whether the carrier of `scheduler` gave it; if it did not, run it here.

    Args:
        question: makes a generator of steps. They must be safe to run on any OS thread, and must not park.
        patience: seconds that the carrier has for each slice.
    """
    if get_ident() == scheduler.ident:
        return finish(question()), True
    inquiry = _Inquiry(scheduler, question())
    try:
        scheduler.post(inquiry.advance)
    except OSError:
        # The poller is closed, so the carrier has ended.
        return finish(inquiry.steps), False
    for _ in range(PATIENCES):
        if inquiry.wait(patience):
            return inquiry.outcome(), True
        if inquiry.withdraw():
            return finish(inquiry.steps), False
    return finish(question()), False


def finish(steps: Steps[T]) -> T:
    """Run the steps to their end and return the answer."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # the result of a generator is untyped here


class _Inquiry(Generic[T]):
    """A question in progress. Its turn is a lock: the carrier holds it during a slice, a withdrawal keeps it."""

    def __init__(self, scheduler: Scheduler, steps: Steps[T]) -> None:
        self.steps = steps
        self._scheduler = scheduler
        self._turn = allocate_lock()
        # Released after each slice, for the caller that waits.
        self._progress = allocate_lock()
        self._progress.acquire()
        self._answers: list[T] = []
        self._error: BaseException | None = None

    def advance(self) -> None:
        """Run a slice; called on the carrier, between two switches."""
        if not self._turn.acquire(False):
            return
        try:
            ends_at = monotonic() + SLICE
            next(self.steps)
            while monotonic() < ends_at:
                next(self.steps)
        except StopIteration as end:
            self._answers.append(end.value)
        except BaseException as error:  # noqa: BLE001  # raised in the caller of `ask`
            self._error = error
        else:
            self._scheduler.make_ready(_NextSlice(self._scheduler, self.advance))
        self._turn.release()
        if self._progress.locked():
            self._progress.release()

    def wait(self, patience: float) -> bool:
        """Wait for the answer; return False if the carrier has not switched for `patience` seconds."""
        while True:
            switches = self._scheduler.switches
            if self._progress.acquire(True, patience):
                if self._answers or self._error is not None:
                    return True
            elif self._scheduler.switches == switches:
                return False

    def withdraw(self) -> bool:
        """Withdraw the question; return False if the carrier is running a slice."""
        return self._turn.acquire(False)

    def outcome(self) -> T:
        if self._error is not None:
            raise self._error
        return self._answers[0]


class _NextSlice(Fiber):
    """Joins the run queue, and starts the next slice when its turn comes.

    It posts the slice instead of running it: finalizers and signal handlers inside code that runs as a fiber would take
    the fiber for a virtual thread.
    """

    name = "inquiry"

    def __init__(self, scheduler: Scheduler, advance: Callable[[], None]) -> None:
        super().__init__(scheduler, None)
        self._advance = advance

    def run(self) -> None:
        self._scheduler.post(self._advance)
