"""Calls of the standard library that may wait, made on no virtual thread: on an OS thread, or inside the scheduler.

A finalizer may call them between two virtual threads. A result that is ready is returned. A wait would stop the
carrier, so it is refused, like every other wait there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from .._core.current import on_carrier
from .._core.wait_queue import refuse_to_wait_inside_scheduler

__all__ = ["wait_outside_scheduler"]

T = TypeVar("T")


def wait_outside_scheduler(wait: Callable[[], T], attempt: Callable[[], T], is_there: Callable[[T], object]) -> T:
    """`wait()`, for a caller that runs on no virtual thread; inside the scheduler `attempt()`, which does not wait.

    Raises:
        RuntimeError: the caller is inside the scheduler, and `is_there` is false for what `attempt` returned.
    """
    if on_carrier():
        result = attempt()
        if is_there(result):
            return result
        refuse_to_wait_inside_scheduler()
    return wait()
