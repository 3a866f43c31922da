"""Sleeping, and blocks with a time limit: thin over `CancelScope`."""

from __future__ import annotations

from types import TracebackType
from typing import Literal

from ._core.cancel import CancelScope, checked_seconds
from ._core.current import running, started_here
from ._core.engine import compiled
from ._core.originals import sleep as original_sleep
from ._core.thread import VirtualThread

__all__ = ["fail_after", "fail_at", "move_on_after", "move_on_at", "shield", "sleep", "sleep_here"]


@compiled
def sleep(seconds: float) -> None:
    """Park for `seconds`; 0 lets every ready thread run once. A checkpoint; starts the runtime.

    Raises:
        ValueError: `seconds` is negative or NaN.
    """
    if not seconds >= 0:
        raise ValueError(f"sleep({seconds!r}): give 0 or more seconds")
    thread = started_here()
    if seconds == 0:
        thread.yield_now()
    else:
        thread.check()
        thread.park(None, seconds)


@compiled
def sleep_here(seconds: float, /) -> None:
    """`time.sleep`: parks a virtual thread, blocks a plain OS thread as it always did."""
    thread = running()
    if thread is None or not seconds > 0:
        # The original also says what is wrong with a negative or strange argument.
        original_sleep(seconds)
        if thread is None:
            return
        thread.yield_now()
    else:
        thread.check()
        thread.park(None, seconds)


def move_on_after(seconds: float | None, *, shield: bool = False, cleanup_grace: float | None = None) -> CancelScope:
    """A scope that cancels itself `seconds` after entering and ends normally then. None: never.

    `scope.cancelled_caught` tells afterwards. Entering and leaving are no checkpoints.
    """
    return _relative(CancelScope(shield=shield, cleanup_grace=cleanup_grace), seconds)


def move_on_at(deadline: float | None, *, shield: bool = False, cleanup_grace: float | None = None) -> CancelScope:
    """`move_on_after` with an absolute time on `vthreads.now()`."""
    return CancelScope(deadline, shield=shield, cleanup_grace=cleanup_grace)


def fail_after(seconds: float | None, *, shield: bool = False, cleanup_grace: float | None = None) -> CancelScope:
    """A scope that cancels itself `seconds` after entering and raises the builtin `TimeoutError` then. None: never.

    Only if the scope absorbed its own cancellation; an exception of the body wins. Entering and leaving are no
    checkpoints.
    """
    return _relative(_FailingScope(shield=shield, cleanup_grace=cleanup_grace), seconds)


def fail_at(deadline: float | None, *, shield: bool = False, cleanup_grace: float | None = None) -> CancelScope:
    """`fail_after` with an absolute time on `vthreads.now()`."""
    return _FailingScope(deadline, shield=shield, cleanup_grace=cleanup_grace)


def shield(seconds: float | None) -> CancelScope:
    """A block that the cancellation of enclosing scopes enters only after `seconds`. None: not before its end.

    It cancels nothing by itself; what was deferred is raised at the next checkpoint inside once the time is over.
    Interrupts pass through, and so does the second Ctrl-C. Entering and leaving are no checkpoints.
    """
    scope = _ShieldScope()
    scope.shield_seconds = checked_seconds(seconds, "seconds")
    return scope


def _relative(scope: CancelScope, seconds: float | None) -> CancelScope:
    scope._seconds = checked_seconds(seconds, "seconds")
    return scope


class _FailingScope(CancelScope):
    __slots__ = ()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        if super().__exit__(kind, error, traceback):
            raise TimeoutError(f"the block did not end in time: {self._cancel_reason}") from None
        return False


class _ShieldScope(CancelScope):
    __slots__ = ("shield_seconds",)

    shield_seconds: float

    def _enter(self, thread: VirtualThread) -> None:
        if self.shield_seconds > 0:
            self._shield_until = thread.scheduler.clock.now() + self.shield_seconds
        super()._enter(thread)
