"""The fiber of the readable engine: a greenlet with a state, a wait, and checkpoints.

It parks and becomes ready; its scheduler decides when it runs. A subclass supplies the code and what its checkpoints
raise. The contract is in the docstring of the package.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextvars import Context
from math import inf
from types import FrameType
from typing import Any, Protocol

from greenlet import getcurrent, greenlet

from ..originals import get_ident
from ..repeated import repeated_in
from .states import ABORTED, NOTHING, ROOM, TIMED_OUT, Signal, State, refuse_to_wait

__all__ = ["Abort", "Fiber"]

NEW, READY, RUNNING, PARKED, ENDED = State

Abort = Callable[[], bool]


class FiberScheduler(Protocol):
    """A scheduler, as a fiber uses it."""

    ident: int
    running: Any
    slice_end: float

    @property
    def when_forking(self) -> Callable[[], object] | None: ...

    @property
    def _now(self) -> Callable[[], float]: ...

    def make_ready(self, fiber: Any) -> None: ...

    def park(self, abort: Abort | None, deadline: float) -> Any: ...

    def post(self, function: Callable[..., Any], *args: Any) -> None: ...

    def suspend_tracing(self) -> None: ...

    def _is_traced(self) -> bool: ...

    def _yield_now(self) -> None: ...


@repeated_in("_core/engine/compiled/fiber.pxi")
class Fiber:
    """The unit of switching. It stays on its scheduler for life, because a greenlet cannot change its OS thread."""

    __slots__ = (
        "_abort", "_greenlet", "_answer", "context", "_has_begun_to_wait", "_parked_at", "_parked_until", "_pending",
        "_scheduler", "state", "_waits_for",
    )  # fmt: skip

    def __init__(self, scheduler: FiberScheduler, context: Context | None) -> None:
        self._scheduler = scheduler
        self.context = context
        self.state: State = NEW
        # True while something may have to be raised at a checkpoint: the only flag that checkpoints read.
        self._pending = False
        # Set by a wait that is about to queue, until it parks: another wait in between needs a stand-in.
        self._has_begun_to_wait = False
        self._greenlet: greenlet | None = None
        self._abort: Abort | None = None
        self._answer: Any = NOTHING
        # Time of the last park, and its deadline; and a name and an object, set by compiled calls, which have no frame.
        self._parked_at = -inf
        self._parked_until = inf
        self._waits_for: tuple[str, Any] | None = None

    def run(self) -> None:
        """The code of the fiber. Must not raise."""
        raise NotImplementedError(f"{type(self).__name__} does not define run()")

    def _frame(self) -> FrameType | None:
        """Return the innermost frame of the fiber; None before its first run and after its end."""
        if self._greenlet is getcurrent() or self._scheduler.running is self:
            # Its greenlet is the current one, even if it is parked: a fiber that finds no ready one polls on its stack.
            return sys._getframe(1)
        return None if self._greenlet is None else self._greenlet.gr_frame

    def _leave_context(self) -> None:
        """Switch to an empty context, so that values of the old one are freed now. Called by the fiber itself."""
        getcurrent().gr_context = self.context = Context()

    def _retire(self) -> None:
        """Mark the fiber as ended: foreign code that runs before its greenlet is left cannot wait."""
        if self._scheduler._is_traced():
            self._scheduler.suspend_tracing()
        self._scheduler.running = None
        self.state = ENDED

    def _break_cycles(self) -> None:
        """Drop references that form cycles. Called after the end, when any code may run."""

    # --- checkpoints

    def _check(self) -> None:
        """The start of every checkpoint: raise what is pending, and yield after a long run.

        If it raises, the call has had no effect yet.
        """
        if _lacks_room():
            refuse_to_wait()
        if self._pending:
            self._raise_due()
        scheduler = self._scheduler
        if scheduler._now() >= scheduler.slice_end:
            scheduler._yield_now()
            if self._pending:
                self._raise_due()

    def _give_way(self) -> None:
        """Yield after a long run, for calls that are not checkpoints but may be the only calls of a loop."""
        scheduler = self._scheduler
        if scheduler._now() >= scheduler.slice_end and not _lacks_room():
            scheduler._yield_now()

    def _yield_now(self) -> None:
        """A checkpoint that lets every ready fiber run once."""
        if _lacks_room():
            refuse_to_wait()
        if self._pending:
            self._raise_due()
        self._scheduler._yield_now()
        if self._pending:
            self._raise_due()

    def _park(self, abort: Abort | None = None, timeout: float | None = None) -> Any:
        """Park, after `_check`; return the value of `_unpark`, or TIMED_OUT after `timeout` seconds.

        Raises exceptions that become pending meanwhile, if `abort()` could withdraw the wait, which then had no effect.
        """
        scheduler = self._scheduler
        deadline = inf if timeout is None else scheduler._now() + timeout
        if self._pending:
            return self._park_pending(abort, deadline)
        answer = scheduler.park(abort, deadline)
        if answer is ABORTED:
            self._raise_aborted()
        return answer

    def _raise_due(self) -> None:
        """Raise what must be raised now, if anything: `_pending` only means that there may be something."""

    def _park_pending(self, abort: Abort | None, deadline: float) -> Any:
        """`_park` while `_pending` is set."""
        return self._scheduler.park(abort, deadline)

    def _raise_aborted(self) -> None:
        """Raise the exception for which `_park` was aborted."""

    # --- being unparked

    def _may_be_roused(self) -> bool:
        """Return whether `_rouse` may take effect; called on the fiber's OS thread."""
        return True

    def _unpark(self, value: Any = True) -> bool:
        """Make the fiber ready; `_park` returns `value`. Thread-safe; returns False if it was not parked any more."""
        scheduler = self._scheduler
        if get_ident() != scheduler.ident:
            scheduler.post(self._unpark_here, value)
            return True
        return self._unpark_here(value)

    def _unpark_here(self, value: Any) -> bool:
        if self._scheduler.when_forking is not None:
            # In the child of a fork, a fiber of the parent ends by this: it must not get a lock or an item.
            self._scheduler.when_forking()
        if self.state is PARKED:
            self._answer = value
            self._scheduler.make_ready(self)
            return True
        if self._answer is NOTHING and self.state in (RUNNING, READY):
            # The fiber is queued but has not parked yet: a finalizer runs in between, which may even have spawned.
            # Store the value, so that its park returns at once.
            self._answer = value
            return True
        return False

    def _take_answer(self) -> Any:
        answer, self._answer = self._answer, NOTHING
        return answer

    def _rouse(self) -> None:
        """Make the fiber check what is pending: if its wait can be withdrawn, `_park` returns ABORTED. Thread-safe."""
        if get_ident() == self._scheduler.ident:
            self._rouse_here()
        else:
            self._scheduler.post(self._rouse_here)

    def _rouse_here(self) -> None:
        if self.state is PARKED and self._may_be_roused():
            self._withdraw(ABORTED)

    def _expire(self) -> None:
        """Handle the deadline of `_park`."""
        if self.state is PARKED:
            self._withdraw(TIMED_OUT)

    def _withdraw(self, answer: Signal) -> None:
        if self._abort is None or self._abort():
            self._answer = answer
            self._scheduler.make_ready(self)


def _lacks_room() -> bool:
    """Return whether a wait that begins here could run out of frames."""
    limit = sys.getrecursionlimit()
    try:
        # A small limit leaves half of its frames to the program.
        sys._getframe(max(limit - ROOM, limit // 2))
    except ValueError:
        return False
    return True
