"""Tasks whose first step is made at once: a coroutine that never waits ends without a turn of the loop.

Python 3.12 and later have eager tasks. Python 3.11 asks the loop to call the first step of a new task soon, so there
this takes the place of `call_soon` while the task is made, and calls the step itself. Imports asyncio.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any

__all__ = ["start_task"]


def start_task(loop: Any, coroutine: Coroutine[Any, Any, Any], context: Context) -> asyncio.Task[Any]:
    """Create a task of `loop`, which runs here, and make its first step at once, unless a task makes a step now.

    A loop with a task factory creates the task, and makes its first step in its next turn.
    """
    if loop.get_task_factory() is not None or asyncio.current_task(loop) is not None:
        return loop.create_task(coroutine, context=context)  # type: ignore[no-any-return]  # a loop of any kind
    return _eager_task(loop, coroutine, context)


def _eager_task(loop: Any, coroutine: Coroutine[Any, Any, Any], context: Context) -> asyncio.Task[Any]:
    if sys.version_info >= (3, 12):
        return asyncio.Task(coroutine, loop=loop, context=context, eager_start=True)
    first_step: Callable[[], None] | None = None

    def call_soon(callback: Callable[..., None], *args: Any, context: Context | None = None) -> Any:
        nonlocal first_step
        if first_step is None and getattr(callback, "__self__", None).__class__ is asyncio.Task:
            first_step = callback
            return None
        # A finalizer runs while the task is made.
        return type(loop).call_soon(loop, callback, *args, context=context)

    loop.call_soon = call_soon
    try:
        task = asyncio.Task(coroutine, loop=loop, context=context)
    finally:
        del loop.call_soon
    assert first_step is not None
    context.run(first_step)
    return task
