"""Run an event loop of the runtime until it is stopped, and end the tasks that are left on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

__all__ = ["cancel_tasks", "end_tasks", "new_event_loop", "run_until_stopped"]


def new_event_loop(name: str) -> asyncio.AbstractEventLoop:
    """Return a new loop of "uvloop" or "asyncio".

    Raises:
        ImportError: uvloop is not installed.
    """
    if name == "asyncio":
        return asyncio.new_event_loop()
    import uvloop

    return uvloop.new_event_loop()


def run_until_stopped(loop: asyncio.AbstractEventLoop) -> None:
    """Run `loop` until `loop.stop()`. A task of the program that raises `SystemExit` does not end it."""
    while True:
        try:
            loop.run_forever()
            return
        except (KeyboardInterrupt, SystemExit):
            # The task keeps it for its waiter. The loop serves others, so it goes on.
            pass


def cancel_tasks(loop: asyncio.AbstractEventLoop) -> list[asyncio.Task[Any]]:
    """Cancel all tasks of `loop`; return them."""
    tasks = list(asyncio.all_tasks(loop))
    for task in tasks:
        task.cancel()
    return tasks


def end_tasks(loop: asyncio.AbstractEventLoop, is_given_up: Callable[[], bool] = lambda: False) -> None:
    """Cancel all tasks of a stopped loop and wait until they have ended; then end generators and the executor.

    Returns early if `is_given_up()` becomes true and the loop is stopped.
    """
    while tasks := cancel_tasks(loop):
        _run(loop, asyncio.wait(tasks), is_given_up)
        if is_given_up():
            return
        for task in tasks:
            if not task.cancelled() and task.exception() is not None:
                context = {"message": "a task failed at the end of the runtime", "exception": task.exception()}
                loop.call_exception_handler({**context, "task": task})
    for shutdown in (loop.shutdown_asyncgens, loop.shutdown_default_executor):
        _run(loop, shutdown(), is_given_up)
        if is_given_up():
            return


def _run(loop: asyncio.AbstractEventLoop, coroutine: Any, is_given_up: Callable[[], bool]) -> None:
    task = loop.create_task(coroutine)
    task.add_done_callback(lambda _: loop.stop())
    while not task.done() and not is_given_up():
        # Other tasks may stop the loop here too.
        run_until_stopped(loop)
