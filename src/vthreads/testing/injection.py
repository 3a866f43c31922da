"""Cancelling a function at each of its checkpoints in turn.

A cancellation may come at any checkpoint, and a test meets the one or two that its author thought of. Here the
function runs once for each. What is injected is an ordinary cancellation of a scope around it, from the moment when the
checkpoint is reached: shields, cleanup grace and groups do what they always do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .._core.cancel import CancelScope
from .._core.clock import VirtualClock
from .._core.current import on_carrier, started_here
from .._core.engine import Scheduler, State
from .._core.runtime import run
from .._core.thread import VirtualThread
from .leaks import Holdings, LeakError, Snapshot
from .overhearing import Overhearing
from .places import describe_call
from .probes import ProbedThread, probe_thread, unprobe_thread

__all__ = ["Checkpoint", "InjectionError", "inject_cancel"]

Expected = type[Exception] | tuple[type[Exception], ...]


@dataclass(frozen=True)
class Checkpoint:
    """One place at which a cancellation was injected: its number, counted from 1, the thread's name, and the call."""

    number: int
    thread: str
    call: str

    def __str__(self) -> str:
        return f"checkpoint {self.number}, in {self.thread!r}: {self.call}"


class InjectionError(AssertionError):
    """A function did not stand being cancelled. Its cause tells more.

    Attributes:
        checkpoint: where it was cancelled, as a `Checkpoint`.
    """

    def __init__(self, checkpoint: Checkpoint, what: str) -> None:
        super().__init__(f"cancelled at {checkpoint}\n{what}")
        self.checkpoint = checkpoint


class _Injector(Overhearing):
    """Probe of every virtual thread inside `scope`: cancels it at checkpoint number `at`."""

    def __init__(self, scheduler: Scheduler, scope: CancelScope, at: int | None) -> None:
        super().__init__(scheduler)
        self._scope = scope
        self._at = at
        self._probed: list[VirtualThread] = []
        self.reached = 0
        self.checkpoint: Checkpoint | None = None

    def watch(self, thread: VirtualThread) -> None:
        probe_thread(thread, self)
        self._probed.append(thread)

    def leave(self) -> None:
        super().leave()
        for thread in self._probed:
            if thread.state is not State.ENDED:
                unprobe_thread(thread)

    def runs(self, fiber: Any) -> None:
        """A thread spawned inside belongs to it, from its first run."""
        super().runs(fiber)
        if type(fiber) is VirtualThread and fiber.is_inside(self._scope):
            self.watch(fiber)

    def checks(self, thread: ProbedThread) -> None:
        if not thread.is_deferring():
            self._reach(thread)

    def yields(self, thread: ProbedThread) -> None:
        """It checks as well, before it lets others run and after."""

    def parks(self, thread: ProbedThread) -> None:
        self.checks(thread)

    # The end of a group: what is cancelled there are its members.
    parks_for_good = checks

    def _reach(self, thread: VirtualThread) -> None:
        self.reached += 1
        if self.reached == self._at:
            self.checkpoint = Checkpoint(self._at, thread.name, describe_call(thread))
            self._scope.cancel(f"injected at checkpoint {self._at}")


def inject_cancel(
    fn: Callable[..., object],
    *,
    setup: Callable[[], Any] | None = None,
    invariant: Callable[..., object] | None = None,
    expected: Expected = (),
    max_checkpoints: int = 10_000,
) -> tuple[Checkpoint, ...]:
    """Call `fn` again and again, cancelled at its first, second, … last checkpoint in turn. A checkpoint.

    Checkpoints of virtual threads spawned inside count as well, and so does each wait at which a call parks after its
    check. After each call the invariant has to hold, and nothing may be left behind (see `check_nothing_leaked`); after
    one that was cancelled, no more may be held of what `setup` made than before it. First of all `fn` is called once
    without a cancellation. It has to do the same each time. On a plain OS thread it runs in a runtime of its own with a
    virtual clock, on a virtual thread in that one's.

    Args:
        fn: what to call. It has to end by itself.
        setup: called before each call; what it returns is handed to `fn` and to `invariant`, which else get nothing.
        invariant: called after each call; false (not None), or an exception, says that it does not hold.
        expected: exceptions that `fn` may answer a cancellation with, also in an `ExceptionGroup`.
        max_checkpoints: after so many calls `fn` is taken for endless.

    Returns:
        The checkpoints at which it was cancelled.

    Raises:
        InjectionError: an `AssertionError` that names the checkpoint; its cause is what was raised.
        LeakError, BaseException: what was left, or raised, by `fn` and `invariant` without a cancellation.
    """
    session = _Session(fn, setup, invariant, expected)
    if on_carrier():
        return session.run(max_checkpoints)
    return run(session.run, max_checkpoints, clock=VirtualClock(patch_time=True))


class _Session:
    def __init__(
        self,
        fn: Callable[..., object],
        setup: Callable[[], Any] | None,
        invariant: Callable[..., object] | None,
        expected: Expected,
    ) -> None:
        self._fn = fn
        self._setup = setup
        self._invariant = invariant
        self._expected = expected

    def run(self, max_checkpoints: int) -> tuple[Checkpoint, ...]:
        before = Snapshot()
        self._call_once(None, before)
        cancelled: list[Checkpoint] = []
        while len(cancelled) < max_checkpoints:
            checkpoint = self._call_once(len(cancelled) + 1, before)
            if checkpoint is None:
                return tuple(cancelled)
            cancelled.append(checkpoint)
        raise RuntimeError(
            f"{self._fn!r} was cancelled at {max_checkpoints} checkpoints and has more; "
            "give inject_cancel a function that ends sooner, or a larger max_checkpoints"
        )

    def _call_once(self, at: int | None, before: Snapshot) -> Checkpoint | None:
        """One call, cancelled at checkpoint number `at`, and its inspection; None if it has not so many."""
        state = () if self._setup is None else (self._setup(),)
        # What was set up goes with the call, and so would whatever stays held of it.
        after_setup = Holdings()
        thread = started_here()
        raised: Exception | None = None
        with CancelScope() as scope:
            injector = _Injector(thread.scheduler, scope, at)
            injector.watch(thread)
            try:
                self._fn(*state)
            except Exception as error:  # noqa: BLE001  # judged below
                raised = error
            finally:
                injector.leave()
        self._judge(raised, state, injector.checkpoint)
        del scope, raised
        # Who is not cancelled may keep what it has taken.
        leaks = [] if injector.checkpoint is None else after_setup.leaks()
        del state, after_setup
        leaks += [leak for leak in before.leaks() if leak not in leaks]
        if leaks:
            raise _failure(injector.checkpoint, "left something behind", LeakError(leaks))
        return injector.checkpoint

    def _judge(self, raised: Exception | None, state: tuple[Any, ...], checkpoint: Checkpoint | None) -> None:
        if raised is not None and (checkpoint is None or not self._is_expected(raised)):
            raise _failure(checkpoint, f"it raised {raised!r}", raised)
        if self._invariant is None:
            return
        try:
            holds = self._invariant(*state)
        except Exception as error:
            raise _failure(checkpoint, f"its invariant does not hold: {error!r}", error) from error
        if holds is not None and not holds:
            raise _failure(
                checkpoint, "its invariant does not hold", AssertionError(f"{self._invariant!r} is {holds!r}")
            )

    def _is_expected(self, error: Exception) -> bool:
        if isinstance(error, ExceptionGroup):
            return error.split(self._expected or ())[1] is None
        return isinstance(error, self._expected)


def _failure(checkpoint: Checkpoint | None, what: str, cause: Exception) -> Exception:
    """What to raise for `cause`: the thing itself, if there was no cancellation."""
    if checkpoint is None:
        return cause
    error = InjectionError(checkpoint, what)
    error.__cause__ = cause
    return error
