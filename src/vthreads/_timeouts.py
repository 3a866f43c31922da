"""`sleep`, `remaining`, and blocks with a time limit: thin wrappers of `CancelScope`."""

from __future__ import annotations

import sys
from contextvars import ContextVar
from math import inf
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from ._core.arguments import checked_seconds, checked_timeout, standard_time
from ._core.cancel import CancelNode, CancelScope, ThreadInside
from ._core.current import running, started_here
from ._core.engine import compiled
from ._core.originals import sleep as original_sleep
from ._core.spawn_site import is_own_frame
from ._core.thread import VirtualThread
from ._core.wait_queue import refuse_to_wait_inside_scheduler, waiter_here

__all__ = [
    "fail_after",
    "fail_at",
    "move_on_after",
    "move_on_at",
    "remaining",
    "shield",
    "sleep",
    "sleep_here",
    "waiting_thread",
]

# Seconds from which on `time.sleep` raises OverflowError: it counts nanoseconds in 64 bits.
TOO_LONG = 2**63 / 10**9


@compiled
def sleep(seconds: float) -> None:
    """Park for `seconds`; 0 lets every ready thread run once. A checkpoint; starts the runtime.

    Raises:
        TypeError: `seconds` is not a number.
        ValueError: `seconds` is negative or NaN.
        OverflowError: `seconds` is an int too large for a float.
    """
    span = checked_timeout(seconds, "seconds")
    if span is None:
        raise TypeError("sleep(None): give 0 or more seconds")
    if span < 0:
        raise ValueError(f"sleep({seconds!r}): give 0 or more seconds")
    thread = started_here()
    if span == 0:
        thread._yield_now()
    else:
        thread._check()
        waiter_here()._park(None, span)


@compiled
def sleep_here(seconds: float, /) -> None:
    """Replacement for `time.sleep`: parks a virtual thread, blocks a plain OS thread like the original."""
    thread = running()
    if thread is None:
        if seconds:
            refuse_to_wait_inside_scheduler()
        original_sleep(seconds)
        return
    span = standard_time(seconds, TOO_LONG)
    if span == 0:
        thread._yield_now()
    elif 0 < span < TOO_LONG:
        thread._check()
        waiter_here()._park(None, span)
    else:
        # The original raises the error, whose text depends on the Python: no number, negative, NaN, or too large.
        original_sleep(seconds)


def move_on_after(seconds: float | None, *, shield: bool = False, cleanup_grace: float | None = None) -> CancelScope:
    """Return a scope that cancels itself `seconds` after entering and then ends normally. None: it never does.

    After the block, `scope.cancelled_caught` shows whether it did. Entering and leaving are no checkpoints.
    """
    # Checked first: a scope that is made and then dropped would be reported as well.
    span = checked_seconds(seconds, "seconds")
    scope = CancelScope(shield=shield, cleanup_grace=cleanup_grace)
    scope._seconds = span
    return scope


def move_on_at(deadline: float | None, *, shield: bool = False, cleanup_grace: float | None = None) -> CancelScope:
    """`move_on_after` with an absolute time, in seconds of `vthreads.now()`. Not a checkpoint."""
    return CancelScope(deadline, shield=shield, cleanup_grace=cleanup_grace)


def fail_after(seconds: float | None, *, shield: bool = False, cleanup_grace: float | None = None) -> FailingScope:
    """Return a scope that cancels itself `seconds` after entering and then raises `TimeoutError`. None: it never does.

    It raises only if it absorbed its own cancellation; another exception of the body propagates. Entering and leaving
    are no checkpoints.
    """
    span = checked_seconds(seconds, "seconds")
    scope = FailingScope(shield=shield, cleanup_grace=cleanup_grace)
    scope._seconds = span
    return scope


def fail_at(deadline: float | None, *, shield: bool = False, cleanup_grace: float | None = None) -> FailingScope:
    """`fail_after` with an absolute time, in seconds of `vthreads.now()`. Not a checkpoint."""
    return FailingScope(deadline, shield=shield, cleanup_grace=cleanup_grace)


def shield(seconds: float | None) -> ShieldScope:
    """Return a block that defers cancellation of enclosing scopes for `seconds`. None: until the end of the block.

    It cancels nothing itself. When the time has expired, a deferred cancellation is raised at the next checkpoint
    inside. Interrupts are not deferred, nor is the second Ctrl-C. Entering and leaving are no checkpoints.
    """
    span = checked_seconds(seconds, "seconds")
    scope = ShieldScope()
    scope._shield_seconds = span
    return scope


# In the context of a coroutine for which a virtual thread waits: a list of that thread, which is empty after the wait.
waiting_thread: ContextVar[list[VirtualThread]] = ContextVar("waiting_thread")


def _bounding_thread() -> VirtualThread | None:
    """Return the thread whose scopes bound the running code: in a coroutine, the one that waits for it."""
    events = sys.modules.get("asyncio.events")
    if events is not None and events._get_running_loop() is not None:
        waiting = waiting_thread.get(None)
        if waiting:
            return waiting[0]
    return running()


def remaining() -> float:
    """Return the seconds until the effective deadline: the earliest of the enclosing scopes that no shield hides.

    `inf` without a deadline; 0.0 if it has expired or the scope is cancelled. Not a checkpoint; on a plain OS thread
    always `inf`. In a coroutine that `vthreads.aio.run` runs, the scopes are those of the thread that waits for it.
    """
    thread = _bounding_thread()
    if thread is None:
        return inf
    if thread._innermost._affected_by is not None:
        return 0.0
    deadline = inf
    node: CancelNode | None = thread._innermost
    while node is not None:
        if isinstance(node, CancelScope):
            deadline = min(deadline, node.deadline)
        if node._shielded():
            break
        node = node._parent
    return max(0.0, deadline - thread._scheduler.clock.now())


class FailingScope(CancelScope):
    """The scope of `fail_after` and `fail_at`: converts its cancellation to `TimeoutError`."""

    __slots__ = ()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        if super().__exit__(kind, error, traceback):
            raise TimeoutError(f"{self._cancel_reason}{_place_of(traceback)}") from None
        return False


def _place_of(traceback: TracebackType | None) -> str:
    """Return the place in the program where the cancellation was raised, as the end of a message."""
    place = ""
    while traceback is not None:
        if not is_own_frame(traceback.tb_frame):
            code = traceback.tb_frame.f_code
            place = f"; it was in {code.co_name}, {code.co_filename}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return place


class ShieldScope(CancelScope):
    """The scope of `shield`. It cancels nothing itself."""

    __slots__ = ("_shield_seconds",)

    _shield_seconds: float

    def _enter(self, thread: ThreadInside) -> None:
        if self._shield_seconds > 0:
            self._shield_until = thread._scheduler.clock.now() + self._shield_seconds
        super()._enter(thread)

    if TYPE_CHECKING:
        # The block ends early only if the program calls `cancel`. With a return type of "bool", type checkers assume
        # that the block may swallow any exception, and require a `return` after it.
        def __exit__(  # type: ignore[override]  # it is a bool
            self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
        ) -> bool | None: ...
