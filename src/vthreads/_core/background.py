"""Groups that belong to a carrier and have no block: of `vthreads.spawn`, and of what `threading` starts."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable
from contextvars import Context
from typing import Any

from ..errors import GroupClosed
from .current import running
from .engine import Scheduler
from .future import Future
from .group import Phase, ThreadGroup
from .thread import VirtualThread

__all__ = ["BackgroundGroup"]


class BackgroundGroup(ThreadGroup):
    """A group that belongs to a carrier, as that of `vthreads.spawn`: no block, independent failures, told at once."""

    def __init__(self, scheduler: Scheduler, name: str = "background") -> None:
        super().__init__(name, on_failure="continue")
        self._home = scheduler
        self._phase = Phase.OPEN

    def _scheduler(self) -> Scheduler:
        return self._home

    def __enter__(self) -> ThreadGroup:
        raise GroupClosed(f"{self!r} belongs to the runtime and has no block; make a ThreadGroup of your own", self)

    def _failed(self, error: BaseException, thread: VirtualThread, future: Future[Any] | None) -> None:
        try:
            threading.excepthook(threading.ExceptHookArgs((type(error), error, error.__traceback__, thread)))
        except BaseException as hook_error:  # noqa: BLE001  # the hook's own failure, shown as the interpreter shows one
            sys.excepthook(type(hook_error), hook_error, hook_error.__traceback__)

    def left(self, thread: VirtualThread) -> None:
        super().left(thread)
        # Nobody iterates over what ran in the background.
        self._ended.clear()

    def make_thread(self, fn: Callable[..., Any], args: tuple[Any, ...], context: Context) -> VirtualThread:
        """Make a member that calls `fn(*args)` in `context`; `launch` has it run."""
        return self._admit(running(), (fn, args, {}), False, context)

    def launch(self, thread: VirtualThread) -> None:
        """Run a member that was made here at once, up to its first park."""
        self._launch(thread)

    def end(self, root: VirtualThread, reason: str) -> None:
        """Cancel all members, and let go of those that do not end within their cleanup grace."""
        if not self._members:
            return
        self.cancel(reason)
        now = root.scheduler.clock.now
        patience = now() + self._scope._grace()
        try:
            while self._members and now() < patience:
                self._empty.add(root)
                self._empty.park(root, patience - now())
        finally:
            for thread in self._members:
                # Never collected: that would run their `finally` blocks on whatever stack is there.
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(thread))

    def join(self, root: VirtualThread) -> None:
        """Wait until no member is left; what interrupts the wait cancels them and is raised at the end."""
        self._body = root
        failures = len(self._failures)
        self._wait_for_members(root)
        for failure, _ in self._failures[failures:]:
            raise failure
