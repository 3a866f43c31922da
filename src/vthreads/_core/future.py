"""The outcome of a virtual thread: a `concurrent.futures.Future` whose internals are created on demand.

`concurrent.futures.wait`, `asyncio.wrap_future` and similar functions read private attributes of the standard class;
the properties at the end supply them.
"""

from __future__ import annotations

import concurrent.futures
import logging
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, InvalidStateError
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar

from .arguments import checked_timeout
from .copies import refuse_copy, refuse_creation
from .current import check_here
from .engine import TIMED_OUT, Section, compiled
from .exceptions import set_traceback, show, traceback_of
from .on_demand import ModuleOnDemand
from .repeated import repeated_in
from .wait_queue import WaitQueue, waiter_here

if TYPE_CHECKING:
    from . import thread as threads
else:
    # The module imports this one.
    threads = ModuleOnDemand("vthreads._core.thread")

__all__ = ["Future"]

T = TypeVar("T")

# The names of the states, which functions of the standard library compare.
RUNNING, FINISHED, CANCELLED = "RUNNING", "FINISHED", "CANCELLED_AND_NOTIFIED"

# One lock for all futures: it is held for a few instructions. Reentrant: a finalizer may run while it is held.
changing_futures = Section()

logger = logging.getLogger("vthreads")


@compiled
class FutureFields:
    """The fields of a future. Compiled code reads them by their places in memory."""

    __slots__ = (
        "_callbacks",
        "_exception",
        "_made_condition",
        "_made_waiters",
        "_result",
        "_state",
        "_traceback",
        "_waiting",
        "thread",
    )


class Future(FutureFields, concurrent.futures.Future[T]):
    """The outcome of a virtual thread, which is available as `.thread`. Created by `spawn`.

    A group joins its threads and reports failures by itself, so the program need not keep futures.
    """

    __slots__ = ()

    def __init__(self, *_: object, **__: object) -> None:
        refuse_creation(
            self,
            "spawn creates it, for the outcome of a thread; "
            "for an outcome that the program sets, use concurrent.futures.Future()",
        )

    @repeated_in("_core/compiled/members.pxi")
    def _init_future(self, thread: threads.VirtualThread) -> Self:
        # The standard __init__ is not called: it would create a condition and two lists for each future.
        self.thread = thread
        self._state = RUNNING
        self._result: Any = None
        self._exception: BaseException | None = None
        # The traceback of the thread. `result` would extend the exception's own traceback with the caller's frames.
        self._traceback: TracebackType | None = None
        self._waiting: WaitQueue | None = None
        self._callbacks: list[Callable[[Any], object]] | None = None
        self._made_condition: threading.Condition | None = None
        self._made_waiters: list[Any] | None = None
        return self

    def __reduce__(self) -> NoReturn:
        refuse_copy(self)

    def __repr__(self) -> str:
        return f"<Future of {self.thread!r}>"

    # --- reading the outcome

    def done(self) -> bool:
        """Return whether the outcome is available. Not a checkpoint; thread-safe."""
        return self._state is not RUNNING

    def running(self) -> bool:
        """Return whether the outcome is not available yet. Not a checkpoint; thread-safe."""
        return self._state is RUNNING

    def cancelled(self) -> bool:
        """Return whether the thread was ended by its cancellation. Not a checkpoint; thread-safe."""
        return self._state is CANCELLED

    @compiled
    def result(self, timeout: float | None = None) -> T:
        """Wait for the outcome and return it. Never cancels the thread; thread-safe.

        A checkpoint, unless the timeout is 0.

        Args:
            timeout: seconds, or None for no limit.

        Raises:
            TimeoutError: the outcome was not available in time.
            concurrent.futures.CancelledError: the thread was cancelled. An ordinary exception, so it cannot be
                confused with the caller's own cancellation.
            BaseException: the exception that ended the thread.
        """
        error = self.exception(timeout)
        if error is not None:
            self._forget_callers()
            try:
                raise error
            finally:
                # The exception refers to this frame. Break the cycle, so that it is freed with its last reference.
                del self, error
        return self._result  # type: ignore[no-any-return]  # the result of the thread

    @repeated_in("_core/compiled/future.pxi")
    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the outcome; return the exception that ended the thread, or None. A checkpoint; see `result`."""
        self._wait(timeout)
        if self._state is CANCELLED:
            raise CancelledError(f"{self.thread!r} was cancelled")
        if self._exception is not None and self.thread.group is not None:
            self.thread.group._failure_taken(self.thread)
        return self._exception

    def _forget_callers(self) -> None:
        """Restore the traceback of the exception to that of the thread.

        The frame of a caller usually refers to this future, which refers to the exception: a cycle. And each call of
        `result` would add its frames to the traceback.
        """
        if self._exception is not None:
            set_traceback(self._exception, self._traceback)

    @repeated_in("_core/compiled/future.pxi")
    def _wait(self, timeout: float | None) -> None:
        seconds = checked_timeout(timeout)
        at_once = seconds is not None and seconds <= 0
        if not at_once:
            check_here()
        with changing_futures:
            if self._state is not RUNNING:
                return
            if at_once:
                raise TimeoutError(f"{self!r} has no outcome yet")
            waiter = waiter_here()
            waiting = self._waiting = self._waiting or WaitQueue()
            waiting.add(waiter)
            # While a finalizer ran, the outcome may have come after the check. So check again.
            if self._state is not RUNNING and waiting.withdraw(waiter):
                return
        if waiting.park(waiter, seconds) is TIMED_OUT:
            raise TimeoutError(f"{self!r} has no outcome after {timeout} seconds")

    # --- requests

    def cancel(self) -> bool:
        """Request the cancellation of the thread and return at once. Not a checkpoint; thread-safe.

        Returns:
            False if the outcome is available already. If the request ends the thread, `cancelled()` is true afterwards.
        """
        if self._state is not RUNNING:
            return False
        self.thread.cancel(f"Future.cancel() was called for {self.thread!r}")
        return True

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        """Call `fn(future)` in the ending thread, or now if the thread has ended. Not a checkpoint; thread-safe.

        An exception of `fn` is logged to the logger "vthreads".
        """
        with changing_futures:
            if self._state is RUNNING:
                self._callbacks = self._callbacks or []
                self._callbacks.append(fn)
                return
        self._call(fn)

    def remove_done_callback(self, fn: Callable[[Any], object]) -> None:
        """Undo `add_done_callback`; no error if `fn` was called already. Not a checkpoint; thread-safe."""
        with changing_futures:
            if self._callbacks and fn in self._callbacks:
                self._callbacks.remove(fn)

    def _call(self, fn: Callable[[Any], object], caught: type[BaseException] = Exception) -> None:
        try:
            fn(self)
        except caught:
            try:
                logger.exception("a done-callback of %r failed", self)
            except BaseException as logging_error:  # noqa: BLE001  # raised by a log handler
                show(logging_error)

    # --- the end, set by the group

    # The methods with which executors set a standard future.

    def set_result(self, result: T) -> NoReturn:
        """Raise `InvalidStateError`: the result is set by the thread. Not a checkpoint."""
        self._refuse_to_be_set()

    def set_exception(self, exception: BaseException | None) -> NoReturn:
        """Raise `InvalidStateError`: the exception is set by the thread. Not a checkpoint."""
        self._refuse_to_be_set()

    def set_running_or_notify_cancel(self) -> NoReturn:
        """Raise `InvalidStateError`: the thread runs by itself. Not a checkpoint."""
        self._refuse_to_be_set()

    def _refuse_to_be_set(self) -> NoReturn:
        raise InvalidStateError(f"only its thread sets {self!r}; pass an outcome through a queue or a channel")

    @repeated_in("_core/compiled/members.pxi")
    def _settle(self, state: str, value: Any, error: BaseException | None) -> None:
        """Store the outcome, unpark the waiters and call the callbacks."""
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
                self._notify_standard_waiters()
                condition.notify_all()
        if self._waiting:
            self._waiting.unpark_all()
        for fn in self._callbacks or ():
            # Catch everything, also `Cancelled` and `SystemExit`: the thread has ended, so no caller could handle them.
            self._call(fn, BaseException)
        self._callbacks = None

    @repeated_in("_core/compiled/members.pxi")
    def _set(self, state: str, value: Any, error: BaseException | None) -> None:
        self._traceback = None if error is None else traceback_of(error)
        self._result, self._exception, self._state = value, error, state

    def _notify_standard_waiters(self) -> None:
        for waiter in self._made_waiters or ():
            if self._state is CANCELLED:
                waiter.add_cancelled(self)
            elif self._exception is not None:
                waiter.add_exception(self)
            else:
                waiter.add_result(self)

    # --- attributes that functions of the standard library read

    @property
    def _condition(self) -> threading.Condition:  # type: ignore[override]  # created on demand
        with changing_futures:
            if self._made_condition is None:
                self._made_condition = threading.Condition()
            return self._made_condition

    def _get_snapshot(self) -> tuple[bool, bool, T | None, BaseException | None]:
        """Return for asyncio, since Python 3.15: done, cancelled, result, exception. The exception counts as taken."""
        state = self._state
        if state is FINISHED:
            return True, False, self._result, self.exception(0)
        return state is CANCELLED, state is CANCELLED, None, None

    @property
    def _waiters(self) -> list[Any]:  # type: ignore[override]  # created on demand
        with changing_futures:
            if self._made_waiters is None:
                self._made_waiters = []
            return self._made_waiters
