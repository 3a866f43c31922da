"""Cancel a function at each of its checkpoints in turn.

A cancellation may come at any checkpoint, and a test covers the one or two that its author thought of. Here the
function runs once for each. The injected cancellation is an ordinary one, of a scope around the function, from the
moment when the checkpoint is reached: shields, cleanup grace and groups work as always.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Any

from .._core.arguments import check_function, checked_count
from .._core.cancel import CancelNode, CancelScope
from .._core.clock import Clock, VirtualClock
from .._core.current import on_carrier, started_here
from .._core.engine import Scheduler, State
from .._core.future import Future
from .._core.runtime import run
from .._core.thread import VirtualThread
from ._checkpoint_probe import ProbedThread, probe_thread, unprobe_thread
from ._leaks import Holdings, LeakError, Snapshot
from ._observer import FiberObserver
from ._places import describe_call

__all__ = ["Checkpoint", "InjectionError", "inject_cancel"]

Expected = type[Exception] | tuple[type[Exception], ...]


@dataclass(frozen=True)
class Checkpoint:
    """A place at which a cancellation was injected: its number, counted from 1, the thread's name, and the call."""

    number: int
    thread: str
    call: str

    def __str__(self) -> str:
        return f"checkpoint {self.number}, in {self.thread!r}: {self.call}"


class InjectionError(AssertionError):
    """A function handled a cancellation wrongly. The cause of this error has the details.

    Attributes:
        checkpoint: the place of the cancellation, as a `Checkpoint`.
    """

    def __init__(self, checkpoint: Checkpoint, what: str) -> None:
        super().__init__(f"cancelled at {checkpoint}\n{what}")
        self.checkpoint = checkpoint


class _Injector(FiberObserver):
    """Probe of every virtual thread inside `scope`: cancels the scope at checkpoint number `at`."""

    def __init__(self, scheduler: Scheduler, scope: CancelScope, at: int | None) -> None:
        super().__init__(scheduler)
        self._scope = scope
        self._at = at
        self._probed: list[VirtualThread] = []
        # The threads in which the injected cancellation was raised, each with its deliveries and its future.
        self._delivered: dict[VirtualThread, tuple[Container[CancelNode], Future[Any] | None]] = {}
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
        # If a call has taken its delivery back, the thread has handled the cancellation.
        kept = [(thread, there) for thread, there in self._delivered.items() if self._scope in there[0]]
        self._delivered = dict(kept)

    def runs(self, fiber: Any) -> None:
        """Probe a thread spawned inside the scope from its first run on."""
        super().runs(fiber)
        if type(fiber) is VirtualThread and fiber._is_inside(self._scope):
            self.watch(fiber)

    def checks(self, thread: ProbedThread) -> None:
        if not thread.is_deferring():
            self._reach(thread)

    def yields(self, thread: ProbedThread) -> None:
        """Do nothing: yielding checks too, before and after other threads run."""

    def parks(self, thread: ProbedThread) -> None:
        self.checks(thread)

    # For example the end of a group: the cancellation then reaches its members.
    parks_uncancellably = checks

    def delivers(self, thread: ProbedThread, node: CancelNode) -> None:
        if node is self._scope and thread._deliveries is not None:
            self._delivered[thread] = thread._deliveries, thread._future

    def swallowers(self, returned: VirtualThread | None) -> list[VirtualThread]:
        """Return the threads that returned a value although the cancellation was raised in them.

        `returned` is the caller's thread, if `fn` returned. A thread that ends drops its future, so it was stored when
        the cancellation was raised.
        """
        delivered, self._delivered = self._delivered, {}
        return [thread for thread, (_, future) in delivered.items() if thread is returned or _has_value(future)]

    def _reach(self, thread: VirtualThread) -> None:
        self.reached += 1
        if self.reached == self._at:
            self.checkpoint = Checkpoint(self._at, thread.name, describe_call(thread))
            self._scope.cancel(f"injected at checkpoint {self._at}")


def _has_value(future: Future[Any] | None) -> bool:
    return future is not None and future.done() and not future.cancelled() and future.exception() is None


def inject_cancel(
    fn: Callable[..., object],
    *,
    setup: Callable[[], Any] | None = None,
    invariant: Callable[..., object] | None = None,
    expected: Expected = (),
    max_checkpoints: int = 10_000,
    clock: Clock | None = None,
) -> tuple[Checkpoint, ...]:
    """Call `fn` repeatedly, cancelled at its first, second, … last checkpoint in turn. A checkpoint.

    Checkpoints of virtual threads spawned inside count too, and so does each wait in which a call parks after its
    check. First `fn` is called once without a cancellation; it must do the same each time. After each call the
    invariant must hold, and nothing may be left behind (see `check_nothing_leaked`). After a cancelled call three more
    rules hold. No object that `setup` made may be held more than before the call. No semaphore may have more permits
    than before, unless calls without a cancellation add permits too. And no thread, the caller's or one spawned
    inside, may have returned after `Cancelled` was raised in it. On a plain OS thread `fn` runs in a new runtime with a
    virtual clock, on a virtual thread in the existing one.

    Args:
        fn: the function to call. It must end without help.
        setup: called before each call; its result is passed to `fn` and `invariant`, which otherwise get no argument.
        invariant: called after each call; an exception or a false result (except None) means that it does not hold.
        expected: exceptions that `fn` may raise when cancelled, also inside an `ExceptionGroup`.
        max_checkpoints: after this many calls `fn` counts as endless.
        clock: for the runtime created on a plain OS thread; None: a `VirtualClock` that patches `time`.

    Returns:
        The checkpoints at which it was cancelled.

    Raises:
        ValueError: `clock` was passed, but there is a runtime already, which has its clock.
        TypeError: calling `fn` would have no effect: it is not callable, or a coroutine or generator function.
        InjectionError: an `AssertionError` that names the checkpoint; its cause is the exception that was raised.
        LeakError, BaseException: what `fn` and `invariant` left behind or raised without a cancellation.
    """
    check_function(fn, "inject_cancel")
    max_checkpoints = checked_count(max_checkpoints, "max_checkpoints", 1)
    session = _Session(fn, setup, invariant, expected)
    if not on_carrier():
        return run(session.run, max_checkpoints, clock=clock or VirtualClock(patch_time=True))
    if clock is not None:
        raise ValueError(
            f"inject_cancel(clock={clock!r}) inside a runtime, which has a clock: pass it to `run` instead"
        )
    return session.run(max_checkpoints)


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
        # Whether a call without a cancellation releases a semaphore more often than it acquires it.
        self._gives_permits = False
        # The first cancellation that a thread swallowed, and the name of the thread.
        self._swallowed: tuple[Checkpoint, str] | None = None

    def run(self, max_checkpoints: int) -> tuple[Checkpoint, ...]:
        before = Snapshot()
        self._call_once(None, before)
        cancelled: list[Checkpoint] = []
        while len(cancelled) < max_checkpoints:
            checkpoint = self._call_once(len(cancelled) + 1, before)
            if checkpoint is None:
                break
            cancelled.append(checkpoint)
        else:
            raise RuntimeError(
                f"{self._fn!r} was cancelled at {max_checkpoints} checkpoints and has more; "
                "pass a function that ends sooner, or a larger max_checkpoints"
            )
        if self._swallowed is not None:
            checkpoint, thread = self._swallowed
            raise InjectionError(
                checkpoint,
                f"thread {thread!r} returned although Cancelled was raised in it; catch Exception instead of "
                "BaseException, or raise the caught exception again",
            )
        return tuple(cancelled)

    def _call_once(self, at: int | None, before: Snapshot) -> Checkpoint | None:
        """Call `fn` once, cancelled at checkpoint number `at`, and check it; None if it has fewer checkpoints."""
        state = () if self._setup is None else (self._setup(),)
        # The result of `setup` is freed after the call, and with it any lock in it that is still held. So record here.
        after_setup = Holdings()
        thread = started_here()
        raised: Exception | None = None
        returned: VirtualThread | None = None
        with CancelScope() as scope:
            injector = _Injector(thread._scheduler, scope, at)
            injector.watch(thread)
            try:
                self._fn(*state)
            except Exception as error:  # noqa: BLE001  # checked below
                raised = error
            else:
                returned = thread
            finally:
                injector.leave()
        swallowers = injector.swallowers(returned)
        if swallowers and injector.checkpoint is not None and self._swallowed is None:
            # Reported at the end, because a failure is more informative.
            self._swallowed = injector.checkpoint, swallowers[0].name
        self._judge(raised, state, injector.checkpoint)
        del scope, raised, returned, swallowers
        leaks = self._unreleased(after_setup, is_cancelled=injector.checkpoint is not None)
        del state, after_setup
        leaks += [leak for leak in before.leaks() if leak not in leaks]
        if leaks:
            raise _failure(injector.checkpoint, "left something behind", LeakError(leaks))
        return injector.checkpoint

    def _unreleased(self, after_setup: Holdings, is_cancelled: bool) -> list[str]:
        """Return what a cancelled call holds and the setup did not. A call without cancellation may keep things."""
        if not is_cancelled:
            self._gives_permits |= bool(after_setup.surplus())
            return []
        return [*after_setup.leaks(), *([] if self._gives_permits else after_setup.surplus())]

    def _judge(self, raised: Exception | None, state: tuple[Any, ...], checkpoint: Checkpoint | None) -> None:
        if raised is not None and (checkpoint is None or not self._is_expected(raised)):
            raise _failure(checkpoint, f"it raised {raised!r}", raised)
        if self._invariant is None:
            return
        try:
            holds = self._invariant(*state)
        except Exception as error:
            # An invariant may state its case with `assert` or with any other error: each means that it does not hold.
            raise _failure(checkpoint, f"its invariant does not hold: {error!r}", error) from error
        if holds is not None and not holds:
            raise _failure(
                checkpoint,
                "its invariant does not hold",
                AssertionError(f"{self._invariant!r} is {holds!r}"),
            )

    def _is_expected(self, error: Exception) -> bool:
        if isinstance(error, ExceptionGroup):
            return error.split(self._expected or ())[1] is None
        return isinstance(error, self._expected)


def _failure(checkpoint: Checkpoint | None, what: str, cause: Exception) -> Exception:
    """Return the exception to raise for `cause`: itself, if there was no cancellation."""
    if checkpoint is None:
        return cause
    error = InjectionError(checkpoint, what)
    error.__cause__ = cause
    return error
