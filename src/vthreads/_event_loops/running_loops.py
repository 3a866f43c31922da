"""A separate running loop for each virtual thread, so that several on one carrier can have one.

asyncio stores the running loop per OS thread, in C, and its tasks and futures read it there. So while a virtual thread
of a carrier has a loop, each switch of that carrier stores the loop of the thread that runs next (and, since Python
3.14, the task that the loop executes). Without loops nothing is called.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from .._core.engine import Scheduler, compiled, supply
from .._core.thread import VirtualThread

__all__ = ["note_running_loop", "running_loop_of"]

# Before Python 3.14 the current task is stored by loop, so it needs no swap.
TASK_IS_OF_OS_THREAD = sys.version_info >= (3, 14)


@compiled
class RunningLoops:
    """The running loops of the virtual threads of one carrier."""

    def __init__(self) -> None:
        # Imported here, because programs without asyncio import this module too. Not from `asyncio`, where the function
        # is replaced by one that calls this module.
        from _asyncio import _get_running_loop, _set_running_loop

        self._get: Callable[[], Any] = _get_running_loop
        self._set: Callable[[Any], None] = _set_running_loop
        self._by_thread: dict[VirtualThread, Any] = {}
        # The loop that asyncio sees at present.
        self._shown: Any = None
        # The current task of each other loop at the time when its virtual thread parked.
        self._tasks: dict[Any, Any] = {}

    def get(self, thread: VirtualThread) -> Any:
        """Return the running loop of `thread`, or None."""
        return self._by_thread.get(thread)

    def note(self, thread: VirtualThread, loop: Any) -> None:
        """Record that `loop` is the running loop of `thread`, which runs; None: it has none."""
        self._shown = loop
        if loop is None:
            self.forget(thread)
            return
        self._by_thread[thread] = loop
        thread._scheduler.when_landed = self._landed

    def forget(self, thread: VirtualThread) -> None:
        """Handle that the loop of `thread` has ended."""
        if self._by_thread.pop(thread, None) is not None and not self._by_thread:
            thread._scheduler.when_landed = None

    def _landed(self, thread: VirtualThread) -> None:
        loop = self._by_thread.get(thread)
        if loop is not self._shown:
            self._show(thread, loop)

    def _show(self, thread: VirtualThread, loop: Any) -> None:
        if TASK_IS_OF_OS_THREAD:
            self._put_task_away()
        if loop is not None and not loop.is_running():
            # The loop has ended and this was not recorded: uvloop may call the original function of asyncio.
            self.forget(thread)
            loop = None
        self._set(loop)
        self._shown = loop
        if loop in self._tasks:
            _swap_task(loop, self._tasks.pop(loop))

    def _put_task_away(self) -> None:
        # A loop whose end was not recorded is no longer stored in asyncio, which refuses to swap its task.
        if self._shown is not None and self._get() is self._shown:
            task = _swap_task(self._shown, None)
            if task is not None:
                self._tasks[self._shown] = task


def _swap_task(loop: Any, task: Any) -> Any:
    """Set the current task of `loop`, which asyncio sees at present; return the previous one."""
    # Imported here, because programs without asyncio import this module too.
    from asyncio.tasks import _swap_current_task  # type: ignore[attr-defined]  # not in Python 3.11, which mypy assumes

    return _swap_current_task(loop, task)


supply(__name__, task_is_of_os_thread=TASK_IS_OF_OS_THREAD, swap_task=_swap_task)


_loops: WeakKeyDictionary[Scheduler, RunningLoops] = WeakKeyDictionary()


def note_running_loop(thread: VirtualThread, loop: Any) -> None:
    """Record that asyncio stores, or is about to store, `loop` as the running loop while `thread` runs; None: no loop.

    From then on it is stored again after each switch to `thread`. Called by `thread` itself.
    """
    of_carrier = _loops.get(thread._scheduler)
    if of_carrier is None:
        of_carrier = _loops[thread._scheduler] = RunningLoops()
    of_carrier.note(thread, loop)


def running_loop_of(thread: VirtualThread) -> Any:
    """Return the running loop of `thread`, or None."""
    of_carrier = _loops.get(thread._scheduler)
    return None if of_carrier is None else of_carrier.get(thread)
