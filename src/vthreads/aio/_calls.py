"""Calls of coroutines by virtual threads: `run` and `await_`.

A call returns when its coroutine has ended. A cancellation of the waiting thread cancels the task of the coroutine, and
the thread waits for its cleanup, as in `offload(on_cancel="wait")`.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from asyncio import CancelledError as TaskCancelled
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import CancelledError
from contextvars import Context
from inspect import isawaitable, iscoroutine
from math import inf
from types import CoroutineType
from typing import Any, Protocol, TypeVar

from .._core.contexts import inherited_context
from .._core.current import started_here
from .._core.engine import Section, compiled, supply
from .._core.exceptions import drop_frame, insert_context, is_a
from .._core.repeated import repeated_in
from .._core.thread import VirtualThread
from .._core.wait_queue import waiter_here
from .._event_loops.guests import guests
from .._os_threads.held_up import OutsideCall, wait_held_up
from .._timeouts import waiting_thread
from ..errors import Cancelled
from ._shared_loop import Waiting, shared_loop

__all__ = ["TaskCall", "await_", "refuse_in_coroutine", "run"]

T = TypeVar("T")


class ServingLoop(Protocol):
    """An event loop as a call uses it: `SharedLoop`, or the `Guest` of a loop on this OS thread."""

    loop: asyncio.AbstractEventLoop
    # Guards the outcome of each call that waits.
    changing: Section
    # The calls that wait, which the loop fails if it is stopped.
    waiting: dict[Waiting, None]

    @property
    def is_over(self) -> bool:
        """Whether the loop runs no more coroutines."""

    def call(self, function: Callable[..., object], *args: Any) -> None:
        """Call `function(*args)` on the loop, soon. Thread-safe. Raises a RuntimeError if the loop is closed."""

    def begin(self, function: Callable[[], object]) -> None:
        """Call `function()`, which creates a task, on the loop: as soon as the loop allows. Raises as `call`."""

    def create_task(self, coroutine: Coroutine[Any, Any, T], context: Context) -> asyncio.Task[T] | None:
        """Create a task of the loop; called by a function that was passed to `begin`. None: it has ended already."""


# --- public


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run `coroutine` on the event loop that all virtual threads share; only this virtual thread waits.

    That is the loop that runs on this OS thread (guest mode, `run(poller="uvloop")`); else a loop on an OS thread of
    the runtime, with uvloop if that is installed. An object that one call has made on it can be used by another one.
    The coroutine gets a copy of the caller's contextvars. A checkpoint; starts the runtime. If `Cancelled` is raised
    before the coroutine has begun, it never runs.

    A cancellation of this thread, as by a deadline, cancels the coroutine. Then this waits until the coroutine has
    ended: if it ends by the cancellation, `Cancelled` is raised; if it returns a value, that is returned, and
    `Cancelled` comes at the next checkpoint. If it has not ended within the cleanup grace, one report on stderr names
    it. Ctrl-C ends the wait at once.

    Returns:
        The result of the coroutine.

    Raises:
        BaseException: the exception of the coroutine; `SystemExit` and `KeyboardInterrupt` do not end the loop.
        concurrent.futures.CancelledError: the task of the coroutine was cancelled, but not by this thread.
        TypeError: `coroutine` is not a coroutine.
        RuntimeError: called by a coroutine, which must use `await`; or a coroutine has stopped the loop.
    """
    if not iscoroutine(coroutine):
        raise TypeError(f"run() got {coroutine!r}, which is not a coroutine; call the async function: run(function())")
    return _wait(coroutine, "run")  # type: ignore[no-any-return]  # `iscoroutine` hides the type of the result


@compiled
def await_(awaitable: Awaitable[T]) -> T:
    """Wait for `awaitable` on the event loop that all virtual threads share, as `await` does in a coroutine.

    Like `run`, for a coroutine, a task or a future of that loop, or any other object that `await` accepts. A
    checkpoint; starts the runtime.

    Raises:
        TypeError: `awaitable` cannot be awaited.
        BaseException: as `run`.
    """
    # A coroutine is the common case, and `isawaitable` takes longer.
    if type(awaitable) is not CoroutineType and not isawaitable(awaitable):
        raise TypeError(f"await_() got {awaitable!r}, which cannot be awaited; pass a coroutine, a task or a future")
    return _wait(awaitable, "await_")


@repeated_in("aio/compiled/_calls.pxi")
def _wait(awaitable: Awaitable[T], name: str) -> T:
    try:
        refuse_in_coroutine(name)
        thread = started_here()
        thread._check()
        call = AwaitCall(thread, awaitable)
    except BaseException:
        # The coroutine never runs. Close it, or Python would warn that it was never awaited.
        if iscoroutine(awaitable):
            awaitable.close()
        raise
    return call.wait(thread)  # type: ignore[no-any-return]  # the result of the awaitable


@repeated_in("aio/compiled/_calls.pxi")
def refuse_in_coroutine(name: str) -> None:
    """Raise if a coroutine calls `name`: it would block the loop, which it may need to go on.

    Raises:
        RuntimeError: the caller is a coroutine, or a callback of an event loop.
    """
    # The virtual threads beside a loop see none, also without the patch.
    if asyncio._get_running_loop() is not None:
        raise RuntimeError(f"aio.{name}() was called by a coroutine, whose loop it would block; use await there")


@repeated_in("aio/compiled/_calls.pxi")
def loop_for(thread: VirtualThread) -> ServingLoop:
    """Return the loop that serves the calls of `thread`: the one that drives its carrier, else the shared one."""
    guest = guests.get(thread._scheduler)
    return guest if guest is not None and (guest.is_lent or guest.is_driven) else shared_loop()


# --- a call


@compiled
class CallFields:
    """The fields of a call. Compiled code reads them by their places in memory."""

    __slots__ = (
        "_abandoned",
        "_awaitable",
        "_context",
        "_is_over",
        "_task",
        "_waiting",
        "_waiting_thread",
        "called_off",
        "error",
        "shared",
        "value",
    )


class TaskCall(CallFields, OutsideCall):
    """The wait of one virtual thread for a task of `shared`.

    A subclass defines `description`, `_start_here` and `_call_off_here`, which begin and cancel the work on the loop,
    and calls `settle` at its end.
    """

    @repeated_in("aio/compiled/_calls.pxi")
    def __init__(self, shared: ServingLoop) -> None:
        super().__init__()
        self.shared = shared
        self.value: Any = None
        self.error: BaseException | None = None
        self.called_off = self._is_over = self._abandoned = False
        # The thread that waits, for the contexts that know it; see `AwaitCall`.
        self._waiting_thread: list[VirtualThread] = []

    @property
    def is_over(self) -> bool:
        return self._is_over

    @property
    def _changing(self) -> Section:
        return self.shared.changing

    # --- in the virtual thread

    @repeated_in("aio/compiled/_calls.pxi")
    def wait(self, thread: VirtualThread) -> Any:
        """Begin, and park until the work has ended; return its value or raise its exception."""
        # Before the message: a loop that ends before it reads the message fails all calls that wait.
        self.shared.waiting[self] = None
        try:
            self.shared.begin(self._start)
        except RuntimeError:
            self.shared.waiting.pop(self, None)
            raise
        # A loop on this OS thread has made the first step already.
        interrupt = None if self._is_over else self._wait_for_end(thread)
        return self.value if interrupt is None and self.error is None else self._conclude(thread, interrupt)

    @repeated_in("aio/compiled/_calls.pxi")
    def _wait_for_end(self, thread: VirtualThread) -> BaseException | None:
        """Park until the work has ended; return the interrupt that has called it off."""
        # The last step of an asynchronous iterator or manager begins without a check, so a cancellation may be pending.
        cleaning_up = thread._innermost._affected_by is not None and thread._is_in_cleanup()
        # While a loop that drives this carrier is blocked, its calls cannot end. Otherwise they exclude a deadlock.
        is_outside = thread._scheduler.loop_calls is not self.shared.waiting
        thread._scheduler.outside += is_outside
        raised: BaseException | None = None
        overdue_at = inf
        try:
            try:
                self._park_first()
            except BaseException as error:  # noqa: BLE001  # raised by `wait`, when the task has ended
                raised, overdue_at = error, _overdue_at(thread, error)
            return None if raised is None else self._end_early(thread, raised, overdue_at, cleaning_up)
        finally:
            thread._scheduler.outside -= is_outside
            # It refers to this frame.
            del raised

    def _end_early(
        self, thread: VirtualThread, raised: BaseException, overdue_at: float, cleaning_up: bool
    ) -> BaseException | None:
        """Call the work off because `raised` has ended the wait, and wait for its end; return an interrupt."""
        try:
            if not self._is_over:
                node = thread._innermost._affected_by
                if node is not None and not cleaning_up:
                    # This `Cancelled` is swallowed here, so do not count it as delivered: the cleanup after the call
                    # must get the full grace.
                    thread._forget_delivery(node)
                self.call_off()
                wait_held_up(thread, self, overdue_at)
        except BaseException:
            # An interrupt, or the end of the cleanup grace. The task goes on in its loop without a waiter.
            self._abandoned = True
            self.shared.waiting.pop(self, None)
            raise
        return None if is_a(raised, Cancelled) else raised

    @repeated_in("aio/compiled/_calls.pxi")
    def _park_first(self) -> None:
        """Park until the call is over, or until something is raised here."""
        with self.shared.changing:
            if self._is_over:
                return
            waiter = waiter_here()
            self._waiting.add(waiter)
        self._waiting.park(waiter)

    def call_off(self) -> None:
        """Cancel the task."""
        self.called_off = True
        try:
            self.shared.call(self._call_off_here)
        except RuntimeError:
            # The loop is closed, so the task has ended or will never begin.
            pass

    def abandon(self) -> None:
        """Record that no thread waits for the outcome: report a failure to the loop."""
        self._abandoned = True

    def _conclude(self, thread: VirtualThread, interrupt: BaseException | None) -> Any:
        error, self.error = self.error, None
        try:
            if interrupt is not None:
                raise interrupt
            if error is None:
                return self.value
            if self.called_off:
                self._raise_cancelled(thread, error)
            if is_a(error, TaskCancelled):
                raise CancelledError(f"{self.description} was cancelled, but not by its waiter") from error
            raise error
        finally:
            # The exceptions refer to this frame. Break the cycle, so that they are freed with their last reference.
            del error, interrupt

    def _raise_cancelled(self, thread: VirtualThread, error: BaseException) -> None:
        """Raise `Cancelled` if the task has ended by it; make it the context of another exception."""
        try:
            thread._check()
        except Cancelled as cancelled:
            if is_a(error, TaskCancelled):
                raise cancelled from None
            insert_context(error, cancelled)

    # --- on the loop

    @compiled
    def _start(self) -> None:
        try:
            self._start_here()
        except BaseException as error:  # noqa: BLE001  # raised in the virtual thread
            self.settle(None, error)

    @abstractmethod
    def _start_here(self) -> None:
        """Begin the work."""

    @abstractmethod
    def _call_off_here(self) -> None:
        """Cancel the work."""

    @compiled
    def settle(self, value: Any, error: BaseException | None) -> None:
        """Store the outcome and unpark the virtual thread; does nothing if there is an outcome already."""
        shared = self.shared
        shared.waiting.pop(self, None)
        self._waiting_thread.clear()
        with shared.changing:
            if self._is_over:
                return
            # The flag last: on another OS thread, `wait` reads it without the section, and then reads the outcome.
            self.value, self.error, self._is_over = value, error, True
        if self._abandoned:
            self._report_late()
        self._waiting.unpark_all()

    def _report_late(self) -> None:
        if self.error is not None and not is_a(self.error, TaskCancelled):
            message = f"{self.description} failed after its waiter had left"
            self.shared.loop.call_exception_handler({"message": message, "exception": self.error})


class AwaitCall(TaskCall):
    """The wait for an awaitable, in a new task and a copy of the caller's context."""

    @repeated_in("aio/compiled/_calls.pxi")
    def __init__(self, thread: VirtualThread, awaitable: Awaitable[Any]) -> None:
        super().__init__(loop_for(thread))
        self._task: asyncio.Task[None] | None = None
        self._awaitable = awaitable
        self._context = inherited_context()
        # For `remaining`; emptied at the end, because tasks that outlive the call keep the context.
        self._waiting_thread = [thread]
        self._context.run(waiting_thread.set, self._waiting_thread)

    @property
    def description(self) -> str:
        """Name the awaitable."""
        return f"the {'coroutine' if iscoroutine(self._awaitable) else 'awaitable'} {_name_of(self._awaitable)}"

    @repeated_in("aio/compiled/_calls.pxi")
    def _start_here(self) -> None:
        if self.called_off or self._is_over:
            # Over already, if the loop was stopped before it read this message.
            self._never_begins()
            return
        coroutine: Any = self._await()
        task = self.shared.create_task(coroutine, self._context)
        if task is not None and not self._is_over:
            self._task = task
            if not coroutine.cr_suspended:
                # It has not begun, so a cancellation may end the task without it.
                task.add_done_callback(self._ended)

    async def _await(self) -> None:
        try:
            value, error = await self._awaitable, None
        except BaseException as raised:  # noqa: BLE001  # raised in the virtual thread
            # Not passed on: `SystemExit` out of a task would end the loop of all others.
            drop_frame(raised)
            value, error = None, raised
        self._task = None
        self.settle(value, error)
        del error

    def _call_off_here(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            # Before its first step. Later, `_await` keeps the cancellation.
            self._never_begins()

    def _never_begins(self) -> None:
        """End the call, which was cancelled before its first step."""
        if iscoroutine(self._awaitable):
            # Otherwise Python would warn that it was never awaited.
            self._awaitable.close()
        self.settle(None, TaskCancelled())


def _overdue_at(thread: VirtualThread, raised: BaseException) -> float:
    """Return until when the work may go on after `raised`; called while that is handled, which makes it a cleanup."""
    is_cancelled = is_a(raised, Cancelled)
    return thread._grace_until() if is_cancelled else thread._scheduler.clock.now() + thread._innermost._grace()


def _name_of(awaitable: object) -> str:
    # Its repr may be code of the user.
    return str(getattr(awaitable, "__qualname__", None) or type(awaitable).__qualname__)


supply(
    __name__,
    call_type=AwaitCall,
    running_loop=asyncio._get_running_loop,
    guests=guests,
    set_thread=waiting_thread.set,
    overdue_at=_overdue_at,
)
