"""Tasks whose first step is made at once: a coroutine that never waits ends without a turn of the loop.

Python 3.12 and later have eager tasks. Python 3.11 asks the loop to call the first step of a new task soon, so there
this takes the place of `call_soon` while the task is made, and calls the step itself. Imports asyncio.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from contextvars import Context
from functools import partial
from typing import Any

from .._core.engine import compiled, supply

__all__ = ["task_starter"]


def task_starter(loop: Any) -> Callable[..., asyncio.Task[Any]]:
    """Return a function that creates a task of `loop`, which runs here, and makes its first step at once.

    It is called with a coroutine and `context=`; not while a task of the loop makes a step, and not for a loop with a
    task factory.
    """
    if sys.version_info >= (3, 12):
        return partial(asyncio.Task, loop=loop, eager_start=True)
    return TaskStarter(loop)


@compiled
class TaskStarter:
    """Creates tasks of a loop, and takes the place of its `call_soon` meanwhile."""

    def __init__(self, loop: Any) -> None:
        self._loop = loop
        self._first_step: Callable[[], None] | None = None

    def __call__(self, coroutine: Coroutine[Any, Any, Any], context: Context) -> asyncio.Task[Any]:
        """Create a task and make its first step."""
        loop = self._loop
        loop.call_soon = self._catch
        try:
            task = asyncio.Task(coroutine, loop=loop, context=context)
        finally:
            del loop.call_soon
        first_step, self._first_step = self._first_step, None
        assert first_step is not None
        context.run(first_step)
        return task

    def _catch(self, callback: Callable[..., None], *args: Any, context: Context | None = None) -> Any:
        if self._first_step is None and getattr(callback, "__self__", None).__class__ is asyncio.Task:
            self._first_step = callback
            return None
        # A finalizer that runs while the task is made has called this: pass its callback on.
        return type(self._loop).call_soon(self._loop, callback, *args, context=context)


supply(__name__, task_type=asyncio.Task)
