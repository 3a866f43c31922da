"""asyncio: a running loop for each virtual thread, so that several of one carrier may each `asyncio.run`.

asyncio keeps the running loop per OS thread, in C, where its tasks and futures look it up. While any virtual thread of
a carrier has one, the switches of that OS thread are watched, and the loop of whoever runs is put there, since Python
3.14 with the task that it executes. Without loops nothing is watched. What an event loop waits in is
a patched `select` object, and parks.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any
from weakref import WeakKeyDictionary

from .._core.current import running
from .._core.engine import Scheduler
from .._core.thread import VirtualThread
from ..local import local
from ..switches import watch_switches

__all__ = ["fit"]

# Before, the current task is kept by its loop.
TASK_IS_OF_OS_THREAD = sys.version_info >= (3, 14)


class _Loops:
    """The running loops of one carrier's virtual threads."""

    def __init__(self, set_running_loop: Callable[[Any], None]) -> None:
        self._set = set_running_loop
        self._by_thread: dict[VirtualThread, Any] = {}
        # The one that asyncio sees.
        self._shown: Any = None
        self._unwatch: Callable[[], None]
        # What those that are not shown were executing when their virtual threads parked.
        self._tasks: dict[Any, Any] = {}

    def run(self, thread: VirtualThread, loop: Any) -> None:
        """`loop` runs in `thread` from now on; None: none does."""
        self._set(loop)
        self._shown = loop
        if loop is None:
            if self._by_thread.pop(thread, None) is not None and not self._by_thread:
                self._unwatch()
            return
        if not self._by_thread:
            self._unwatch = watch_switches(self._switched)
        self._by_thread[thread] = loop

    def _switched(self) -> None:
        thread = running()
        # A greenlet of the program's own, inside a virtual thread, is that thread as well.
        loop = None if thread is None else self._by_thread.get(thread)
        if loop is not self._shown:
            if TASK_IS_OF_OS_THREAD:
                self._put_task_away()
            self._set(loop)
            self._shown = loop
            if loop in self._tasks:
                _swap_task(loop, self._tasks.pop(loop))

    def _put_task_away(self) -> None:
        if self._shown is not None:
            task = _swap_task(self._shown, None)
            if task is not None:
                self._tasks[self._shown] = task


def _swap_task(loop: Any, task: Any) -> Any:
    """Make `task` what `loop`, which asyncio sees, is executing; what it was before."""
    # Not imported with this module, which is imported for programs without asyncio, too.
    from asyncio.tasks import _swap_current_task  # type: ignore[attr-defined]  # Python 3.11, which mypy takes, has none

    return _swap_current_task(loop, task)


def fit(events: ModuleType) -> list[Callable[[], None]]:
    """Exchange what `asyncio.events` keeps the running loop by; what takes it back."""
    original = events._set_running_loop
    loops: WeakKeyDictionary[Scheduler, _Loops] = WeakKeyDictionary()

    def set_running_loop(loop: Any, /) -> None:
        """`asyncio._set_running_loop`. Not a checkpoint."""
        thread = running()
        if thread is None:
            original(loop)
            return
        of_carrier = loops.get(thread.scheduler)
        if of_carrier is None:
            of_carrier = loops[thread.scheduler] = _Loops(original)
        of_carrier.run(thread, loop)

    events._set_running_loop = set_running_loop  # type: ignore[attr-defined]  # as above
    return [lambda: setattr(events, "_set_running_loop", original), *_exchange_local(events)]


def _exchange_local(events: Any) -> list[Callable[[], None]]:
    """Keep the loop that a policy was given by `set_event_loop` per virtual thread, too, in policies old and new."""
    policy_class = getattr(events, "BaseDefaultEventLoopPolicy", None) or events._BaseDefaultEventLoopPolicy
    original = policy_class._Local
    attributes = {name: value for name, value in vars(original).items() if not name.startswith("__")}
    successor = type(original.__name__, (local,), attributes)
    policy_class._Local = successor
    policy = events._event_loop_policy
    if isinstance(getattr(policy, "_local", None), original):
        values = dict(vars(policy._local))
        policy._local = successor()
        vars(policy._local).update(values)
    return [lambda: setattr(policy_class, "_Local", original)]
