"""Dask: calls on its workers as members of a group, which learn that they were cancelled.

`cancel()` of a future of Dask answers True, and the worker goes on with the call: it forgets only the result. So each
call here has a flag, an event of `distributed` with a name that no other call has. The cancellation sets it, and the
function reads it in the worker.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from concurrent.futures import Executor
from contextvars import ContextVar
from functools import partial
from importlib import import_module
from time import monotonic
from typing import Any

from .._core.delivery import deferred_delivery
from .._core.future import Future
from .._core.group import ThreadGroup

__all__ = ["cancelled", "submit"]

# Seconds for which an answer of the scheduler holds: asking it costs a message in both directions.
FRESH = 0.05


def submit(group: ThreadGroup, client: Any, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
    """Call `fn(*args, **kwargs)` on a worker of Dask, as a member of `group`.

    Like `group.submit` with an executor of the client: a failure cancels the siblings, and the member holds its slot of
    `max_concurrency` until the call has ended. In addition `cancelled()` is true in the worker after the member was
    cancelled. Equal calls run once each (`pure=False`). A checkpoint if `spawn` of the group is one.

    Args:
        client: a `distributed.Client` that is not asynchronous.
    """
    return group.submit(_Flagging(client), fn, *args, **kwargs)


def cancelled() -> bool:
    """Return whether the member that waits for the running call was cancelled. For the function, in the worker.

    False in code that `submit` has not started. It asks the scheduler of Dask, at most 20 times a second.
    """
    flag = _flag.get()
    return flag is not None and flag.is_set()


class _Flagging(Executor):
    """An executor of the client, with a flag for each call."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._executor = client.get_executor(pure=False)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        name = f"vthreads-{uuid.uuid4().hex}"
        # A cancellation inside would lose a call that has begun.
        with deferred_delivery():
            future = self._executor.submit(_call, name, fn, args, kwargs)
            future.add_done_callback(partial(self._set_if_cancelled, name))
        return future

    def _set_if_cancelled(self, name: str, future: Any) -> None:
        if future.cancelled():
            # Without a wait: this runs in the cancelled thread, or in that of the client's loop.
            self._client.loop.add_callback(partial(self._client.scheduler.event_set, name=name))


class _Flag:
    """The flag of one call, in the worker."""

    def __init__(self, name: str) -> None:
        distributed: Any = import_module("distributed")
        self._event = distributed.Event(name)
        self._is_set = False
        self._asked = float("-inf")

    def is_set(self) -> bool:
        if not self._is_set and monotonic() - self._asked >= FRESH:
            self._is_set = bool(self._event.is_set())
            self._asked = monotonic()
        return self._is_set

    def forget(self) -> None:
        """Remove it from the scheduler, which keeps events that are set."""
        if self._is_set:
            self._event.clear()


_flag: ContextVar[_Flag | None] = ContextVar("flag", default=None)


def _call(name: str, fn: Callable[..., Any], args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """Call the function in the worker."""
    flag = _Flag(name)
    token = _flag.set(flag)
    try:
        return fn(*args, **keywords)
    finally:
        _flag.reset(token)
        flag.forget()
