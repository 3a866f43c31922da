"""Dask: calls on its workers as members of a group, which learn that they were cancelled.

`cancel()` of a future of Dask answers True, and the worker goes on with the call: it forgets only the result. But the
scheduler of Dask tells the worker so, and the function reads it there. Nothing is stored for a call, so nothing is left
of one that no worker has begun, or whose worker has died.
"""

from __future__ import annotations

import concurrent.futures
import weakref
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from importlib import import_module
from typing import Any

from .._core.delivery import deferred_delivery
from .._core.future import Future
from .._core.group import ThreadGroup

__all__ = ["cancelled", "submit"]


def submit(group: ThreadGroup, client: Any, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
    """Call `fn(*args, **kwargs)` on a worker of Dask, as a member of `group`.

    Like `group.submit` with an executor of the client: a failure cancels the siblings, and the member holds its slot of
    `max_concurrency` until the call has ended. In addition `cancelled()` is true in the worker after the member was
    cancelled. Equal calls run once each (`pure=False`). If other code cancels the call, as `client.restart()` does, the
    member counts as cancelled. A checkpoint if `spawn` of the group is one.

    Args:
        client: a `distributed.Client` that is not asynchronous.
    """
    return group.submit(_Tasks(client), fn, *args, **kwargs)


def cancelled() -> bool:
    """Return whether the running call was cancelled, as its member was. For the function, in the worker.

    False in code that `submit` has not started, and in the processes of a worker whose executor is a pool of them. It
    sends no message, so a loop may call it often.
    """
    call = _running_call.get()
    return call is not None and call.is_cancelled()


class _Tasks(Executor):
    """An executor of the client. Its futures have the outcome of their task, also if the client cannot load that."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[Any]:
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        # A cancellation inside would lose a call that has begun.
        with deferred_delivery():
            # Pure calls that are equal would be one task, and the cancellation of one call would not cancel it.
            task = self._client.submit(_call, fn, args, kwargs, pure=False)
            future.add_done_callback(partial(self._cancel, weakref.ref(task)))
            self._client.loop.add_callback(_pass_on, task, future)
        return future

    def _cancel(self, reference: Callable[[], Any], future: concurrent.futures.Future[Any]) -> None:
        # The client keeps a failure as long as its task exists, and the traceback of the failure refers to `future`. So
        # a strong reference would keep all three.
        task = reference()
        if future.cancelled() and task is not None and not task.cancelled():
            # Without a wait: this runs in the cancelled thread.
            self._client.loop.add_callback(task.cancel)


async def _pass_on(task: Any, future: concurrent.futures.Future[Any]) -> None:
    """Pass the outcome of `task` to `future`, on the loop of the client."""
    try:
        error = await task.exception()
        if error is None:
            _settle(future.set_result, await task)
        else:
            _settle(future.set_exception, error.with_traceback(await task.traceback()))
    except BaseException as failure:  # noqa: BLE001  # raised in the member
        if task.status in ("finished", "error"):
            # The client cannot load the outcome.
            _settle(future.set_exception, failure)
        else:
            # Other code has cancelled the task, or the client has ended.
            future.cancel()


def _settle(settle: Callable[[Any], object], outcome: Any) -> None:
    # The member may have been cancelled meanwhile.
    with suppress(concurrent.futures.InvalidStateError):
        settle(outcome)


class _RunningCall:
    """A call in its worker."""

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        # In the OS thread that runs the function; `cancelled` may be called by another one, with its context.
        self._key = worker.get_current_task()

    def is_cancelled(self) -> bool:
        """Return whether the scheduler of Dask has released the task. Any OS thread of the worker."""
        task = self._worker.state.tasks.get(self._key)
        return task is None or task.state == "cancelled"


_running_call: ContextVar[_RunningCall | None] = ContextVar("running_call", default=None)


def _call_here() -> _RunningCall | None:
    """Return the call that this OS thread runs for its worker. None in a process of a pool, far from the worker."""
    distributed: Any = import_module("distributed")
    try:
        return _RunningCall(distributed.get_worker())
    except ValueError:
        return None


def _call(fn: Callable[..., Any], args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """Call the function in the worker."""
    token = _running_call.set(_call_here())
    try:
        return fn(*args, **keywords)
    finally:
        _running_call.reset(token)
