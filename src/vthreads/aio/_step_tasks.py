"""Asynchronous iterators and context managers in blocking code: `iterate` and `enter`.

All steps of one object (`__anext__`, `aclose`; `__aenter__`, `__aexit__`) run in one task and one context, because
`asyncio.timeout`, `asyncio.TaskGroup` and anyio's scopes require it.
"""

from __future__ import annotations

import asyncio
from asyncio import CancelledError as TaskCancelled
from collections.abc import AsyncIterable, Callable, Generator
from concurrent.futures import CancelledError
from contextlib import AbstractAsyncContextManager
from contextvars import Context
from types import TracebackType
from typing import Any, Generic, TypeVar

from .._core.cancel import CancelScope
from .._core.contexts import inherited_context
from .._core.current import running, started_here
from .._core.engine import State
from .._core.exceptions import drop_frame, is_a, raise_as_it_is
from ..errors import Cancelled
from ._calls import TaskCall, loop_for, refuse_in_coroutine

__all__ = ["enter", "iterate"]

T = TypeVar("T")

Step = Callable[[], Any]


class _StepTask:
    """A task on an event loop that runs the steps of one asynchronous object in order, one for each call of a thread.

    Args:
        context: the context of the task.
        cancelled: called on the loop when other code cancels the task between two steps, with the arguments of the
            `asyncio.CancelledError`; returns the step with which the task ends, or None if it waits for the next step.
    """

    def __init__(self, context: Context, cancelled: Callable[..., Step | None]) -> None:
        self.shared = loop_for(started_here())
        self.current: _StepCall | None = None
        self.task: asyncio.Task[None] | None = None
        self._context = context
        self._cancelled = cancelled
        self._next: asyncio.Future[_StepCall | None] | None = None
        # Steps that were passed while an abandoned one still runs, in order; None: the end.
        self._queued: list[_StepCall | None] = []

    # --- in the virtual thread

    def run(self, step: Step, name: str) -> Any:
        """Run `step()` in the task; return its result or raise its exception. A checkpoint."""
        refuse_in_coroutine(name)
        thread = started_here()
        thread._check()
        return _StepCall(self, step, name).wait(thread)

    def run_last(self, step: Step, name: str) -> Any:
        """Run `step()` as the last step of the task; return its result or raise its exception. A checkpoint.

        The step runs even if the thread is cancelled already, because it releases something: as in a coroutine, the
        cancellation is raised at its first wait. If the task has ended, nothing is left to release.
        """
        refuse_in_coroutine(name)
        return _StepCall(self, step, name, is_last=True).wait(started_here())

    def end(self, last: Step | None = None) -> None:
        """End the task, after `last()` if it is given; does not wait. Thread-safe."""
        try:
            self.shared.call(self._end_here, last)
        except RuntimeError:
            # The loop is closed, and has ended the task.
            pass

    # --- on the loop

    def pass_on(self, step: _StepCall) -> None:
        """Pass `step` to the task; start the task for its first step."""
        loop = self.shared.loop
        if self.task is None:
            self._next = loop.create_future()
            self.task = loop.create_task(self._run_steps(), context=self._context)
            self.task.add_done_callback(self._task_ended)
        elif self._next is None or self.task.done():
            # The task runs its last step, and accepts no other one: end the wait when it has ended.
            self.task.add_done_callback(lambda _: step.end_unstarted())
            return
        assert self._next is not None
        if self._next.done():
            self._queued.append(step)
        else:
            self._begin(step)

    def _begin(self, step: _StepCall | None) -> None:
        """Pass `step` to the task, which waits for it; None ends the task."""
        assert self._next is not None
        self.current = step
        self._next.set_result(step)

    def _unawaited(self, step: Step) -> _StepCall:
        """Return the call of a last step for which no thread waits: its failure goes to the handler of the loop."""
        call = _StepCall(self, step, "the last step", is_last=True)
        call.abandon()
        return call

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        """Settle the first step of a task that was cancelled before it began, and so has not run the step."""
        if self.current is not None:
            self.current.settle(None, TaskCancelled())
        # Break the cycle with the object that made this one.
        del self._cancelled

    def _end_here(self, last: Step | None) -> None:
        if self.task is None or self._next is None:
            return
        step = None if last is None else self._unawaited(last)
        if self._next.done():
            # A step still runs whose waiter was interrupted.
            self._queued.append(step)
        else:
            self._next.set_result(step)
            self._next = None

    async def _run_steps(self) -> None:
        while (step := await self._wait()) is not None:
            value = error = None
            try:
                value = await step.step()
            except BaseException as raised:  # noqa: BLE001  # raised in the virtual thread
                drop_frame(raised)
                error = raised
            self.current = None
            if step.called_off and self.task is not None:
                # The cancellation was for this step, and is over with it.
                self.task.uncancel()
            if step.is_last:
                # Wait for no other one: a cancellation there would run a last step again.
                self._next = None
            if self._next is not None:
                self._next = self.shared.loop.create_future()
                if self._queued:
                    self._begin(self._queued.pop(0))
            step.settle(value, error)
            del value, error
            if self._next is None:
                return

    async def _wait(self) -> _StepCall | None:
        """Return the next step, or None at the end."""
        while self._next is not None:
            try:
                return await asyncio.shield(self._next)
            except TaskCancelled as error:
                # Scopes of anyio recognize their own cancellation by the message.
                if self.current is None:
                    last = self._cancelled(*error.args)
                    if last is not None:
                        self._next = None
                        return self._unawaited(last)
                elif self.task is not None:
                    # A step was passed to the task before: the cancellation comes at its first wait.
                    self.task.uncancel()
                    self.task.cancel(*error.args)
        return None


class _StepCall(TaskCall):
    """The wait of a virtual thread for one step of a `_StepTask`."""

    def __init__(self, steps: _StepTask, step: Step, name: str, is_last: bool = False) -> None:
        super().__init__(steps.shared)
        self._name = name
        self.step = step
        self.is_last = is_last
        self._steps = steps

    @property
    def description(self) -> str:
        """Name the step."""
        return f"{self._name} of an asynchronous object"

    def _start_here(self) -> None:
        if self.called_off and not self.is_last:
            self.settle(None, TaskCancelled())
        else:
            self._steps.pass_on(self)

    def end_unstarted(self) -> None:
        """End the wait for a step that does not run, because the task has ended."""
        error = RuntimeError(f"{self.description} did not run: its task has ended; call aio.{self._name} again")
        self.settle(None, None if self.is_last else error)

    def _call_off_here(self) -> None:
        if self._steps.current is self and self._steps.task is not None:
            self._steps.task.cancel()


# --- iterators


def iterate(iterable: AsyncIterable[T]) -> Generator[T, None, None]:
    """Return a generator over the items of an asynchronous iterable, for blocking code.

    Each step waits as `aio.run` does, and is a checkpoint. All steps run in one task on the shared loop, in a copy of
    the caller's context. The call itself is not a checkpoint, and starts nothing.

    Returns:
        A generator, whose `close` closes an asynchronous generator and waits for its cleanup. Use
        `contextlib.closing` if the loop may end before the iterator.

    Raises:
        TypeError: `iterable` is not an asynchronous iterable.
        RuntimeError: called by a coroutine, which must use `async for`, an `await`.
    """
    refuse_in_coroutine("iterate")
    if not hasattr(type(iterable), "__aiter__"):
        raise TypeError(f"iterate() got {iterable!r}, which has no __aiter__; pass an asynchronous iterable")
    return _iterate(iterable, inherited_context())


def _iterate(iterable: AsyncIterable[T], context: Context) -> Generator[T, None, None]:
    iteration = _Iteration(iterable, context)
    try:
        while True:
            try:
                item = iteration.next()
            except StopAsyncIteration:
                return
            yield item
            iteration.refuse_if_cancelled()
    finally:
        iteration.end()


class _Iteration(Generic[T]):
    """The iterator of one `iterate`, and the task that runs its steps."""

    def __init__(self, iterable: AsyncIterable[T], context: Context) -> None:
        self._iterable = iterable
        self._iterator: Any = None
        self._is_cancelled = self._is_exhausted = False
        self._steps = _StepTask(context, self._cancelled)

    def next(self) -> T:
        """Return the next item, or raise StopAsyncIteration. A checkpoint."""
        try:
            return self._steps.run(self._next_item, "iterate")  # type: ignore[no-any-return]  # the item
        except StopAsyncIteration:
            self._is_exhausted = True
            raise

    def refuse_if_cancelled(self) -> None:
        """Raise if other code has cancelled the task since the last item."""
        if self._is_cancelled:
            raise CancelledError(f"the task of {self._iterator!r} was cancelled between two items")

    def end(self) -> None:
        """Close the iterator, unless it is exhausted, and wait for its cleanup where the caller can wait."""
        if self._is_exhausted or running() is None:
            # Inside the scheduler (the garbage collector has dropped the generator) nothing can wait.
            self._steps.end(None if self._is_exhausted else self._close)
        else:
            self._steps.run_last(self._close, "iterate")

    # --- in the task

    def _cancelled(self, *message: Any) -> Step:
        self._is_cancelled = True
        return self._close

    async def _next_item(self) -> T:
        if self._iterator is None:
            self._iterator = self._iterable.__aiter__()
        return await self._iterator.__anext__()  # type: ignore[no-any-return]  # the item

    async def _close(self) -> None:
        if hasattr(self._iterator, "aclose"):
            await self._iterator.aclose()


# --- context managers


class enter(Generic[T]):  # noqa: N801 - used like a function: `with enter(manager) as value:`
    """Enter an asynchronous context manager in blocking code: `with enter(manager) as value:`.

    `__aenter__` and `__aexit__` run in one task on the shared loop, in a copy of the caller's context; each waits as
    `aio.run` does. `__aexit__` receives an `asyncio.CancelledError` in place of `Cancelled`. If the manager cancels its
    task meanwhile, as `asyncio.timeout` does, that cancels the block.

    Raises:
        TypeError: `manager` is not an asynchronous context manager.
        RuntimeError: called by a coroutine, which must use `async with`, an `await`.
        concurrent.futures.CancelledError: (by the block) other code has cancelled the task.
    """

    def __init__(self, manager: AbstractAsyncContextManager[T]) -> None:
        refuse_in_coroutine("enter")
        if not hasattr(type(manager), "__aenter__") or not hasattr(type(manager), "__aexit__"):
            raise TypeError(
                f"enter() got {manager!r}, which is not an asynchronous context manager; enter others by `with`"
            )
        self._manager = manager
        self._scope: CancelScope | None = None
        self._is_entered = False
        # The arguments of the cancellation, when other code has cancelled the task.
        self._cancelled: tuple[Any, ...] | None = None
        self._thread = started_here()
        self._steps = _StepTask(inherited_context(), self._cancel_block)

    def _cancel_block(self, *message: Any) -> Step | None:
        """Cancel the block. If its thread does not leave it any more, return the step that leaves the manager."""
        self._cancelled = message
        if self._steps.shared.is_over or self._thread.state is State.ENDED:
            return lambda: self._manager.__aexit__(TaskCancelled, TaskCancelled(*message), None)
        if self._scope is not None:
            self._scope.cancel(f"the task of a {type(self._manager).__qualname__} was cancelled")
        return None

    async def _enter_manager(self) -> T:
        value = await self._manager.__aenter__()
        self._is_entered = True
        return value

    def __enter__(self) -> T:
        try:
            value: T = self._steps.run(self._enter_manager, "enter")
        except BaseException as error:
            # Python calls `__exit__` only after an `__enter__` that returns, but the manager may have been entered.
            self._leave_after(error)
            raise
        self._scope = CancelScope()
        if self._cancelled is not None:
            self._cancel_block(*self._cancelled)
        self._scope.__enter__()
        return value

    def _leave_after(self, error: BaseException) -> None:
        """Leave the manager after an interrupted `__aenter__`, if that has completed, or as soon as it completes."""
        passed = TaskCancelled(*error.args) if is_a(error, Cancelled) else error

        async def leave() -> None:
            if self._is_entered:
                await self._manager.__aexit__(type(passed), passed, passed.__traceback__)

        if self._is_entered:
            self._steps.run_last(leave, "enter")
        else:
            self._steps.end(leave)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        absorbed, rest = self._leave_scope(error, traceback)
        passed = rest
        if rest is not None and is_a(rest, Cancelled):
            passed = TaskCancelled(*(self._cancelled if absorbed and self._cancelled is not None else rest.args))

        async def leave() -> Any:
            return await self._manager.__aexit__(None if passed is None else type(passed), passed, traceback)

        try:
            swallowed = bool(self._steps.run_last(leave, "enter"))
        except CancelledError as foreign:
            if foreign.__cause__ is not passed:
                raise
            # `__aexit__` has raised what it received, as a `with` block passes an exception on.
            swallowed = False
        if absorbed and not swallowed:
            raise CancelledError(f"the task of {self._manager!r} was cancelled by other code")
        if rest is not None and rest is not error and not swallowed:
            raise_as_it_is(rest)
        return swallowed

    def _leave_scope(
        self, error: BaseException | None, traceback: TracebackType | None
    ) -> tuple[bool, BaseException | None]:
        """Leave the scope of the block; return whether `error` is its cancellation, and the error that is left.

        That is another one if `error` is a group with the cancellation in it, or if the scope cannot be left.
        """
        assert self._scope is not None
        try:
            kind = None if error is None else type(error)
            return self._scope.__exit__(kind, error, traceback), error
        except BaseException as rest:  # noqa: BLE001  # passed to `__aexit__` in place of `error`
            return False, rest
