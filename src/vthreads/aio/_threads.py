"""Virtual threads that coroutines wait for: `to_vthread` and `wrap_future`."""

from __future__ import annotations

import asyncio
import sys
from asyncio import CancelledError as TaskCancelled
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any, ParamSpec, TypeVar

from .._core.arguments import check_function
from .._core.background import BackgroundGroup
from .._core.current import running, started_here
from .._core.engine import Scheduler
from .._core.exceptions import drop_frame, insert_context, raise_as_it_is, report, summary_of, without_cancelled
from .._core.replaced import latest
from .._core.thread import VirtualThread
from .._event_loops.guests import guest_of, is_served

__all__ = ["to_vthread", "wrap_future"]

P = ParamSpec("P")
T = TypeVar("T")


async def to_vthread(fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `fn(*args, **kwargs)` on a virtual thread, which runs on the OS thread of this loop; await its end.

    The thread gets a copy of the context. It belongs to the awaiting task: a cancellation of the task cancels the
    thread, and this still waits until the thread has ended, whatever else cancels the task. If the thread ends by that,
    `asyncio.CancelledError` is raised; if it returns a value, that is returned. If the coroutine that awaits is closed,
    the thread is cancelled, and a failure of it is reported through `threading.excepthook`.

    To be awaited on the loop: not thread-safe. Starts the runtime, as the guest of the loop. `ThreadGroup.current` is
    the background group in the thread. On the loop of `aio.run`, which has an OS thread, the thread lives in real time,
    also if the caller of `run` has a virtual clock.

    Raises:
        TypeError: calling `fn` would have no effect: it is not callable, or a coroutine or generator function.
        BaseException: the exception of `fn`, which is reported nowhere else.
        RuntimeError: the loop blocks this OS thread while it waits, so the thread would never go on. uvloop does so if
            it does not drive the runtime: on a virtual clock, with another poller, or inside another loop.
        concurrent.futures.CancelledError: the thread was cancelled, but not by this task.
    """
    check_function(fn, "to_vthread")
    scheduler = started_here()._scheduler
    background: BackgroundGroup = scheduler.background
    loop = asyncio.get_running_loop()
    _refuse_if_not_served(scheduler, loop)
    outcome = _Outcome(loop, fn, args, kwargs)
    future = background.spawn(outcome.run)
    # If the thread has ended already, the callback is called here.
    future.add_done_callback(outcome.thread_ended)
    cancelled = None if outcome.is_over else await outcome.wait(future.thread)
    return outcome.conclude(future.thread, cancelled)  # type: ignore[no-any-return]  # the result of `fn`


def _refuse_if_not_served(scheduler: Scheduler, loop: asyncio.AbstractEventLoop) -> None:
    if not is_served(scheduler, loop):
        raise RuntimeError(
            f"{loop!r} blocks its OS thread while it waits, so the virtual threads there would not go on; "
            "use asyncio.SelectorEventLoop after vthreads.patch()"
        )


class _Outcome:
    """The outcome of a virtual thread, for one task."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self._loop = loop
        self._call = fn, args, kwargs
        self._value: Any = None
        self._error: BaseException | None = None
        # Whether the thread has ended.
        self.is_over = False
        # Whether no coroutine waits any more, because it was closed.
        self._is_abandoned = False
        self._waiter: asyncio.Future[None] | None = None

    # --- in the virtual thread

    def run(self) -> None:
        """Call the function; a failure is kept for the task."""
        fn, args, kwargs = self._call
        try:
            self._value = latest(fn)(*args, **kwargs)
        except BaseException as error:  # noqa: BLE001  # raised in the task
            drop_frame(error)
            self._error = error
            if self._is_abandoned:
                self._report_failure(running())

    def thread_ended(self, future: Future[None]) -> None:
        """Resume the task, which waits for the thread."""
        if future.cancelled() and self._error is None:
            # It was cancelled before its first run.
            self._error = future.thread._new_cancelled()  # type: ignore[attr-defined]  # a Future of this package
        self.is_over = True
        if self._waiter is not None:
            call_in_loop(self._loop, self._resume_task, future)

    # --- in the task

    def _resume_task(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self, thread: VirtualThread) -> TaskCancelled | None:
        """Wait until the thread has ended; return the first cancellation of the task meanwhile."""
        cancelled: TaskCancelled | None = None
        overdue: asyncio.TimerHandle | None = None
        while not self.is_over:
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            except TaskCancelled as error:
                if cancelled is None:
                    cancelled = error
                    grace = thread._innermost._grace()
                    overdue = self._loop.call_later(grace, _report, thread)
                    thread.cancel(f"{asyncio.current_task()!r} was cancelled")
            except BaseException:
                # The coroutine is closed (`GeneratorExit`), so it cannot wait for the thread.
                if overdue is not None:
                    overdue.cancel()
                self._abandon(thread)
                raise
        if overdue is not None:
            overdue.cancel()
        return cancelled

    def _abandon(self, thread: VirtualThread) -> None:
        self._is_abandoned = True
        self._waiter = None
        thread.cancel("the coroutine that awaits it was closed")
        if self.is_over:
            # It has failed before, and the coroutine has not seen it.
            self._report_failure(thread)

    def _report_failure(self, thread: VirtualThread | None) -> None:
        error, self._error = self._error, None
        if error is not None and without_cancelled(error) is not None:
            report(error, thread)

    def conclude(self, thread: VirtualThread, cancelled: TaskCancelled | None) -> Any:
        """Return the value or raise the exception."""
        error, self._error = self._error, None
        try:
            if error is None:
                return self._value
            is_failure = without_cancelled(error) is not None
            if cancelled is not None and not is_failure:
                raise cancelled
            if not is_failure:
                raise CancelledError(f"{thread!r} was cancelled, but not by its task") from error
            if cancelled is not None:
                insert_context(error, cancelled)
            raise_as_it_is(error)
        finally:
            # The exceptions refer to this frame. Break the cycle, so that they are freed with their last reference.
            del error, cancelled


def _report(thread: VirtualThread) -> None:
    sys.stderr.write(f"vthreads: a cancelled task still waits for {thread!r}, which goes on after its cleanup grace\n")


def call_in_loop(loop: asyncio.AbstractEventLoop, function: Callable[[], object], future: Any) -> None:
    """Call `function()` on `loop`, soon; called by the ending thread of `future`. A closed loop does not call it."""
    scheduler = future.thread._scheduler if hasattr(future, "thread") else None
    guest = None if scheduler is None or not future.thread._is_here() else guest_of(scheduler)
    try:
        if guest is not None and guest.loop is loop:
            guest.call(function)
        else:
            loop.call_soon_threadsafe(function)
    except RuntimeError:
        # The loop is closed, and nothing on it waits.
        pass


def wrap_future(future: Future[T]) -> asyncio.Future[T]:
    """Return a future of the running loop with the outcome of `future`, which may be of any executor.

    As `asyncio.wrap_future`, but if `future` is cancelled by others, awaiting raises
    `concurrent.futures.CancelledError`, which is not taken for a cancellation of the awaiting task. A cancellation of
    the wrapper cancels `future` and does not wait. To be called on the loop: not thread-safe. Not a checkpoint.

    Raises:
        RuntimeError: `future` is of a virtual thread that the loop would block; see `to_vthread`.
    """
    loop = asyncio.get_running_loop()
    thread = getattr(future, "thread", None)
    if isinstance(thread, VirtualThread) and not future.done() and thread._is_here():
        _refuse_if_not_served(thread._scheduler, loop)
    wrapper: asyncio.Future[T] = loop.create_future()

    def settle() -> None:
        if wrapper.done():
            return
        try:
            wrapper.set_result(future.result(0))
        except (TaskCancelled, StopIteration) as error:
            # Neither can be the exception of a future of asyncio.
            wrapper.set_exception(RuntimeError(f"{future!r} ended with {summary_of(error)}"))
        except BaseException as error:  # noqa: BLE001  # raised where the wrapper is awaited
            wrapper.set_exception(error)

    def pass_on(wrapper: asyncio.Future[T]) -> None:
        if wrapper.cancelled():
            future.cancel()

    wrapper.add_done_callback(pass_on)
    future.add_done_callback(lambda done: call_in_loop(loop, settle, done))
    return wrapper
