"""The outcome of a virtual thread: a `concurrent.futures.Future` whose internals are made only when somebody asks.

`concurrent.futures.wait`, `asyncio.wrap_future` and their like read the private attributes of the standard class; the
properties at the end supply them.
"""

from __future__ import annotations

import concurrent.futures
import logging
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, InvalidStateError
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from .current import checkpoint
from .engine import TIMED_OUT, Outcome, Section, compiled
from .wait_queue import WaitQueue, waiter_here

if TYPE_CHECKING:
    from .thread import VirtualThread

__all__ = ["Future"]

T = TypeVar("T")

# The states by the names that the standard library's functions compare with.
RUNNING, FINISHED, CANCELLED = "RUNNING", "FINISHED", "CANCELLED_AND_NOTIFIED"

# One for all futures: what it guards takes a few instructions. Reentrant, because a finalizer may run inside.
changing_futures = Section()

logger = logging.getLogger("vthreads")


# What a future keeps.
PLACES = (
    "_callbacks",
    "_exception",
    "_made_condition",
    "_made_waiters",
    "_result",
    "_state",
    "_waiting",
    "failure_taken",
    "thread",
)


class Future(Outcome, concurrent.futures.Future[T]):
    """The result to come of a spawned virtual thread, available as `.thread`.

    A group cares for its threads by itself; keeping the future is never required.
    """

    __slots__ = tuple(place for place in PLACES if not hasattr(Outcome, place))

    def __init__(self, thread: VirtualThread) -> None:
        # The standard __init__ is left out on purpose: it would make a condition and two lists for each future.
        self.thread = thread
        self._state = RUNNING
        self._result: Any = None
        self._exception: BaseException | None = None
        # Whether somebody has seen the failure, so that its group need not raise it again.
        self.failure_taken = False
        self._waiting: WaitQueue | None = None
        self._callbacks: list[Callable[[Any], object]] | None = None
        self._made_condition: threading.Condition | None = None
        self._made_waiters: list[Any] | None = None

    def __repr__(self) -> str:
        return f"<Future of {self.thread!r}>"

    # --- asking

    def done(self) -> bool:
        """Whether the outcome is there. Not a checkpoint; thread-safe."""
        return self._state is not RUNNING

    def running(self) -> bool:
        """Whether the outcome is still to come. Not a checkpoint; thread-safe."""
        return self._state is RUNNING

    def cancelled(self) -> bool:
        """Whether the thread has ended by its cancellation. Not a checkpoint; thread-safe."""
        return self._state is CANCELLED

    @compiled
    def result(self, timeout: float | None = None) -> T:
        """Wait for the outcome and return it. Never cancels what it waits for; thread-safe.

        A checkpoint, unless the timeout is 0.

        Args:
            timeout: seconds, or None for no limit.

        Raises:
            TimeoutError: the outcome was not there in time.
            concurrent.futures.CancelledError: the thread was cancelled. An ordinary exception, never mistaken for
                the caller's own cancellation.
            BaseException: whatever the thread raised.
        """
        self._wait(timeout)
        self.failure_taken = True
        if self._state is CANCELLED:
            raise CancelledError(f"{self.thread!r} was cancelled")
        if self._exception is not None:
            try:
                raise self._exception
            finally:
                # The exception refers to this frame; without the cycle it goes when the caller lets go of it.
                del self
        return self._result  # type: ignore[no-any-return]  # what the thread returned

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the outcome; the exception it ended with, or None. A checkpoint; thread-safe. As `result`."""
        self._wait(timeout)
        self.failure_taken = True
        if self._state is CANCELLED:
            raise CancelledError(f"{self.thread!r} was cancelled")
        return self._exception

    def _wait(self, timeout: float | None) -> None:
        at_once = timeout is not None and timeout <= 0
        if not at_once:
            checkpoint()
        waiter = waiter_here()
        with changing_futures:
            if self._state is not RUNNING:
                return
            if at_once:
                raise TimeoutError(f"{self!r} has no outcome yet")
            waiting = self._waiting = self._waiting or WaitQueue()
            waiting.add(waiter)
        if waiting.park(waiter, timeout) is TIMED_OUT:
            raise TimeoutError(f"{self!r} has no outcome after {timeout} seconds")

    # --- asking for its end

    def cancel(self) -> bool:
        """Request the cancellation of the thread and return at once. Not a checkpoint; thread-safe.

        Returns:
            False if the outcome is there already. `cancelled()` is true once the thread has ended by the request.
        """
        if self._state is not RUNNING:
            return False
        self.thread.cancel(f"Future.cancel() was called for {self.thread!r}")
        return True

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        """Have `fn(future)` called in the ending thread, or now if the outcome is there. Not a checkpoint; thread-safe.

        An exception of `fn` is logged to the logger "vthreads".
        """
        with changing_futures:
            if self._state is RUNNING:
                self._callbacks = self._callbacks or []
                self._callbacks.append(fn)
                return
        self._call(fn)

    def remove_done_callback(self, fn: Callable[[Any], object]) -> None:
        """Undo `add_done_callback`; no error if it was called already. Not a checkpoint; thread-safe."""
        with changing_futures:
            if self._callbacks and fn in self._callbacks:
                self._callbacks.remove(fn)

    def _call(self, fn: Callable[[Any], object], caught: type[BaseException] = Exception) -> None:
        try:
            fn(self)
        except caught:
            logger.exception("a done-callback of %r failed", self)

    # --- the end, told by the group

    def _set_by_hand(self, *_: Any) -> NoReturn:
        raise InvalidStateError(f"{self!r} is set by its thread alone; for an outcome of your own use a queue")

    # What the standard class offers to executors.
    set_result = set_exception = set_running_or_notify_cancel = _set_by_hand  # type: ignore[assignment]  # all refuse

    def settle(self, state: str, value: Any, error: BaseException | None) -> None:
        """The outcome is there: wake those who wait and call those who asked for it."""
        condition = self._made_condition
        if condition is None:
            with changing_futures:
                condition = self._made_condition
                if condition is None:
                    self._set(state, value, error)
        if condition is not None:
            with condition:
                with changing_futures:
                    self._set(state, value, error)
                self._tell_standard_waiters()
                condition.notify_all()
        if self._waiting:
            self._waiting.unpark_all()
        for fn in self._callbacks or ():
            # A `Cancelled` or `SystemExit` as well: the thread has ended, so nobody above could be told.
            self._call(fn, BaseException)
        self._callbacks = None

    def _set(self, state: str, value: Any, error: BaseException | None) -> None:
        self._result, self._exception, self._state = value, error, state

    def _tell_standard_waiters(self) -> None:
        for waiter in self._made_waiters or ():
            if self._state is CANCELLED:
                waiter.add_cancelled(self)
            elif self._exception is not None:
                waiter.add_exception(self)
            else:
                waiter.add_result(self)

    # --- what the standard library's functions look at

    @property
    def _condition(self) -> threading.Condition:  # type: ignore[override]  # made when asked for
        with changing_futures:
            if self._made_condition is None:
                self._made_condition = threading.Condition()
            return self._made_condition

    @property
    def _waiters(self) -> list[Any]:  # type: ignore[override]  # made when asked for
        with changing_futures:
            if self._made_waiters is None:
                self._made_waiters = []
            return self._made_waiters
