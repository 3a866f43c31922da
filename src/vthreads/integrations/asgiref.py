"""asgiref, under Django: calls of `sync_to_async` on virtual threads, as guests of the server's event loop.

asgiref makes each call in an executor. Calls that are not thread-sensitive get one here that spawns a virtual thread
for each. Those that are thread-sensitive get one with a single virtual thread for each `ThreadSensitiveContext`, which
Django enters for each request: they run one after the other, and share the values of that thread.

Not replaced are the executors that a caller passes, the thread for sensitive calls outside any such context, and the
threads of `async_to_sync`.
"""

from __future__ import annotations

import asyncio
import functools
import weakref
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextvars import Context
from types import ModuleType
from typing import Any

from .._core.cancel import CancelScope
from .._core.exceptions import is_a, summary_of
from .._core.runtime import spawn
from .._sync.queues import SimpleQueue
from ..errors import Cancelled
from ._imports import watch_imports

__all__ = ["install"]

Undo = Callable[[], None]


def install() -> Undo:
    """Run the calls of `sync_to_async` on virtual threads: views, middleware and the database layer of Django.

    The number of calls at the same time has no limit. Calls that are thread-sensitive stay one after the other within a
    `ThreadSensitiveContext`. The cancellation of the awaiting task cancels the call: `Cancelled` is raised at its next
    checkpoint, and the task goes on when the call has ended, its cleanup included.

    To be called before the first request, also before asgiref is imported. Not a checkpoint; starts no runtime: the
    first call does.

    Returns:
        The function that undoes it.
    """
    undo: list[Undo] = []
    watch = watch_imports(["asgiref.sync"], lambda module: undo.extend(_fit(module)))
    undo.append(watch.end)
    for module in watch.present:
        undo.extend(_fit(module))

    def undo_all() -> None:
        while undo:
            undo.pop()()

    return undo_all


class _Call(asyncio.Future[Any]):
    """A call in an executor of this module, for a task of the running loop.

    A future of asyncio, which `run_in_executor` returns unchanged: a future that it made would be over at once when the
    task cancels it, before the cleanup of the call has run.
    """

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        super().__init__(loop=asyncio.get_running_loop())
        self._function: Callable[[], Any] | None = functools.partial(function, *args, **keywords)
        self._scope = CancelScope()

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel the call and nothing else on its thread; one that has begun is over when it has ended."""
        if self.done():
            return False
        if self._function is not None:
            self._function = None
            return super().cancel(msg)
        self._scope.cancel("the task that awaits it was cancelled")
        return True

    def run(self) -> None:
        """Call the function, in a virtual thread."""
        function, self._function = self._function, None
        if function is None:
            return
        value = failure = None
        try:
            with self._scope:
                value = function()
        except BaseException as error:  # noqa: BLE001  # raised in the task that waits for this future
            # A cancellation that comes here is that of the thread, which ends at its next checkpoint: the scope absorbs
            # that of the call.
            failure = error
        self._report(value, failure)

    def _report(self, value: Any, failure: BaseException | None) -> None:
        was_cancelled = self._scope.cancelled_caught or is_a(failure, Cancelled)
        if is_a(failure, StopIteration):
            # A future cannot raise it into a coroutine.
            failure, cause = RuntimeError(f"the call raised {summary_of(failure)}"), failure
            failure.__cause__ = cause
        try:
            self.get_loop().call_soon_threadsafe(self._conclude, value, failure, was_cancelled)
        except RuntimeError:
            # The loop is closed, and nothing on it waits.
            pass

    def _conclude(self, value: Any, failure: BaseException | None, was_cancelled: bool) -> None:
        if was_cancelled:
            super().cancel()
        elif failure is not None:
            self.set_exception(failure)
        else:
            self.set_result(value)


class _Threads(Executor):
    """A virtual thread for each call."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        call = _Call(fn, args, kwargs)
        spawn(call.run)
        return call


class _OneThread(Executor):
    """One virtual thread for all calls, in their order. It ends with the executor."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._end = weakref.finalize(self, self._calls.put, None)
        self._has_begun = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        call = _Call(fn, args, kwargs)
        self._calls.put(call)
        if not self._has_begun:
            self._has_begun = True
            # In an empty context: a copy of this one would keep the `ThreadSensitiveContext`, and so this executor.
            Context().run(spawn, _run_calls, self._calls)
        return call

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the thread after the calls that wait. Does not wait for that."""
        self._end()


def _run_calls(calls: SimpleQueue[_Call | None]) -> None:
    while (call := calls.get()) is not None:
        call.run()


# --- what is replaced


def _fit(module: ModuleType) -> list[Undo]:
    sync: Any = module
    original_exit = sync.ThreadSensitiveContext.__aexit__
    original_pool = sync.ThreadPoolExecutor
    # The class has this attribute only if it is installed already; the attribute of asgiref belongs to the instances.
    installed = vars(sync.SyncToAsync).get("_executor")
    sync.SyncToAsync._executor = _executor_property()
    sync.ThreadPoolExecutor = _make_executor
    sync.ThreadSensitiveContext.__aexit__ = _exit_of_context(sync, original_exit)

    def undo() -> None:
        if installed is None:
            del sync.SyncToAsync._executor
        else:
            sync.SyncToAsync._executor = installed
        sync.ThreadPoolExecutor = original_pool
        sync.ThreadSensitiveContext.__aexit__ = original_exit

    return [undo]


def _executor_property() -> property:
    """Return the attribute `_executor` of a call, which asgiref reads if the call is not thread-sensitive."""
    threads = _Threads()

    def executor(self: Any) -> Any:
        chosen = vars(self).get("_executor")
        return threads if chosen is None else chosen

    def choose(self: Any, chosen: Any) -> None:
        vars(self)["_executor"] = chosen

    return property(executor, choose)


def _make_executor(*args: Any, **keywords: Any) -> Any:
    # `sync_to_async` makes one in a coroutine, and `async_to_sync` elsewhere.
    return _OneThread() if asyncio._get_running_loop() is not None else ThreadPoolExecutor(*args, **keywords)


def _exit_of_context(sync: Any, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    async def leave(self: Any, *raised: Any) -> None:
        executors = sync.SyncToAsync.context_to_thread_executor
        if isinstance(executors.get(self), _OneThread):
            # The original would start an OS thread that waits for the end.
            executors.pop(self).shutdown()
        await original(self, *raised)

    return leave
