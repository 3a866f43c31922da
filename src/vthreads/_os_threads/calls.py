"""Calls on OS threads: their queue for a permit, and the delivery of their outcome.

    QUEUED ──permit─> UNDER_WAY ──returned──> OVER
       └──no thread waits for it any more───────┘

A call waits for a permit of its limiter, runs on an OS thread of the pool, and passes its outcome to the threads that
still wait for it. If there are none, the outcome is disposed of. The call keeps its permit until it has really ended.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextvars import Context
from enum import Enum
from typing import Any, NamedTuple
from weakref import WeakSet

from .._core.clock import Clock
from .._core.current import carriers
from .._core.delivery import deferred_delivery
from .._core.engine import Section
from .._core.exceptions import drop_frame
from .._core.own_os_thread import signal_mask, with_signal_mask
from .._core.participants import Participant, participate
from .._core.semaphore import Semaphore
from .._core.submitted import SubmittedCall, submitted_calls
from .held_up import OutsideCall
from .pool import Work, the_pool

__all__ = ["Call", "CallUnderWay", "Limiter", "calls_under_way", "name_of"]

logger = logging.getLogger("vthreads")


class CallUnderWay(NamedTuple):
    """Snapshot of a call that occupies an OS thread, or runs in an executor.

    Attributes:
        kind: name of its limiter; "cancel" for a function that was passed to end another call; "executor".
        function: the function that was called.
        since: time on `vthreads.now()` at which it began.
        abandoned: whether no thread waits for it any more.
    """

    kind: str
    function: Callable[..., Any]
    since: float
    abandoned: bool


class Limiter:
    """Limits how many calls of one kind occupy an OS thread at the same time; further calls queue, first in, first out.

    Args:
        name: name of the kind, for messages.
        permits: number of calls at the same time.

    Raises:
        ValueError: `permits` is less than 1.
    """

    def __init__(self, name: str, permits: int) -> None:
        if permits < 1:
            raise ValueError(f"Limiter({name!r}, {permits}): no call could ever run; pass 1 permit or more")
        self.name = name
        self.limit = permits
        self.permits = Semaphore(permits)
        _limiters.add(self)

    def __repr__(self) -> str:
        statistics = self.permits.statistics()
        return f"<Limiter {self.name!r} free={statistics.value} of {self.limit} waiting={statistics.waiting}>"


_limiters: WeakSet[Limiter] = WeakSet()


def calls_under_way() -> list[CallUnderWay]:
    """Return the calls that occupy an OS thread or an executor, abandoned ones too. Not a checkpoint; thread-safe.

    The oldest of each kind comes first.
    """
    calls: list[Work | SubmittedCall] = [*list(the_pool().calls_under_way), *submitted_calls()]
    return [CallUnderWay(call.kind, call.function, call.since, call.abandoned) for call in calls]


# --- a call


class Phase(Enum):
    """The states of a call; see the diagram in the module's docstring."""

    QUEUED = "queued"
    UNDER_WAY = "under way"
    OVER = "over"


class Call(OutsideCall):
    """A call on an OS thread, with one or several waiters. Thread-safe.

    Args:
        limiter: the call needs one of its permits; None if it needs no permit.
        clock: the clock for the time at which the call began.
        function, arguments, keywords: the function and its arguments.
        context: the contextvars of the call; None for a call of the runtime itself.
        dispose: called with a result for which no thread waits.
        when_over: called once, when the call has ended or will never begin.
    """

    def __init__(
        self,
        limiter: Limiter | None,
        clock: Clock,
        function: Callable[..., Any],
        arguments: tuple[Any, ...] = (),
        keywords: dict[str, Any] | None = None,
        *,
        context: Context | None = None,
        dispose: Callable[[Any], object] | None = None,
        when_over: Callable[[Call], object] | None = None,
    ) -> None:
        super().__init__()
        self.kind = "cancel" if limiter is None else limiter.name
        self.function = function
        self.since = clock.now()
        self.value: Any = None
        self.error: BaseException | None = None
        self.users_own = context is not None
        self._permits = None if limiter is None else limiter.permits
        self.clock = clock
        self._arguments = arguments
        self._keywords = keywords or {}
        self._context = context
        # User code runs with the signal mask of the thread that requested the call, as in a thread that it starts.
        self._signal_mask = signal_mask() if self.users_own else ()
        self._dispose = dispose
        self._when_over = when_over
        self._phase = Phase.QUEUED
        self._wanted_by = 0

    def __repr__(self) -> str:
        return f"<call of {name_of(self.function)} {self._phase.value}{' abandoned' if self.abandoned else ''}>"

    @property
    def _changing(self) -> Section:
        return the_pool().changing

    @property
    def description(self) -> str:
        return f"the offloaded call of {name_of(self.function)}"

    @property
    def abandoned(self) -> bool:
        """Whether no thread waits for the outcome."""
        return self._wanted_by == 0

    @property
    def is_over(self) -> bool:
        return self._phase is Phase.OVER

    # --- start

    def start(self) -> None:
        """Begin, or queue for a permit; the caller counts as a waiter until it calls `leave`."""
        self._wanted_by = 1
        if self._permits is None or self._permits._take_or_queue(self):
            self._unpark()

    def _unpark(self, value: Any = True) -> bool:
        """Begin, with a permit; called by the call that released it."""
        self._phase = Phase.UNDER_WAY
        self.since = self.clock.now()
        try:
            the_pool().run(self)
        except RuntimeError as start_error:  # raised in the waiters of the call
            start_error.add_note(f"no OS thread could be started to call {name_of(self.function)}")
            self.end(None, start_error)
            self.release()
            self.unpark_waiters()
        return True

    def withdraw(self) -> bool:
        """Remove it from the queue for a permit; return True if it has not begun and never will."""
        with the_pool().changing:
            if self._permits is None or not self._permits._withdraw(self):
                return False
            self._phase = Phase.OVER
        # There is no result to dispose of.
        self._dispose = None
        self._notify_over()
        return True

    # --- waiting (called in a virtual thread)

    def join(self) -> bool:
        """Add a waiter; return False if that is not possible, because the call is over or abandoned."""
        with the_pool().changing:
            if self.abandoned or self.is_over:
                return False
            self._wanted_by += 1
            return True

    def leave(self) -> bool:
        """Remove a waiter; return True if the call continues without any waiter."""
        with the_pool().changing:
            self._wanted_by -= 1
            if self._wanted_by:
                return False
            # If the call is over now, its outcome was kept for this last waiter. Drop it below.
            is_over = self.is_over
        if is_over:
            self._drop_outcome()
            return False
        return not self.withdraw()

    # --- running (called on an OS thread of the pool)

    def make(self) -> tuple[Any, BaseException | None]:
        """Make the call; return its value and its exception."""
        try:
            if self._context is None:
                return self.function(*self._arguments, **self._keywords), None
            with with_signal_mask(self._signal_mask):
                return self._context.run(self.function, *self._arguments, **self._keywords), None
        except BaseException as error:  # noqa: BLE001  # raised in the waiters
            # Remove this frame, which would be noise in the user's traceback.
            drop_frame(error)
            return None, error

    def end(self, value: Any, error: BaseException | None) -> None:
        """Store the outcome, or dispose of it if the call was abandoned."""
        # Free the arguments, which may be large.
        self._arguments, self._keywords, self._context = (), {}, None
        with the_pool().changing:
            self.value, self.error = value, error
            self._phase = Phase.OVER
            unwanted = self.abandoned
        self._notify_over()
        if unwanted:
            self._drop_outcome()

    def release(self) -> None:
        """Release the permit."""
        if self._permits is not None:
            self._permits.release()

    def unpark_waiters(self) -> None:
        """Unpark the waiters."""
        if self.abandoned and self.users_own:
            # An abandoned call that could have unparked a thread has ended. A carrier whose threads are all parked may
            # be deadlocked now, and must check.
            for scheduler in list(carriers.values()):
                scheduler.post(_do_nothing)
        self._waiting.unpark_all()

    def _notify_over(self) -> None:
        when_over, self._when_over = self._when_over, None
        if when_over is not None:
            when_over(self)

    def _drop_outcome(self) -> None:
        value, error, self.value, self.error = self.value, self.error, None, None
        if error is not None:
            # A failed `cancel` function is an error: the call that it should have ended continues.
            level = logging.ERROR if self._permits is None else logging.INFO
            logger.log(level, "an abandoned call of %r failed", self.function, exc_info=error)
        elif self._dispose is not None:
            try:
                with deferred_delivery():
                    self._dispose(value)
            except Exception:
                # No caller waits for the result any more. Raised here, it would end the OS thread of the pool.
                logger.exception("the late result of %r could not be disposed of", self.function)


def name_of(function: Callable[..., Any]) -> str:
    """Return a name of `function` for a message. Its repr is code of the user and may fail, so do not use it."""
    name = getattr(function, "__qualname__", None)
    return name if isinstance(name, str) else f"a {type(function).__qualname__}"


def _do_nothing() -> None:
    """Do nothing: posting this interrupts the poll of the carrier, which then checks for a deadlock again."""


def _forget_permits() -> None:
    """Free the permits in the child of a fork, where the calls that have them do not exist."""
    for limiter in list(_limiters):
        limiter.permits = Semaphore(limiter.limit)


participate(__name__, Participant(forked=_forget_permits))
