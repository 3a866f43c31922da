"""Groups that belong to a carrier and have no block: of `vthreads.spawn`, and of what `threading` starts."""

from __future__ import annotations

from _ctypes import Py_INCREF
from collections.abc import Callable
from contextvars import Context
from typing import Any

from .cancel import CancelScope
from .current import running
from .engine import Scheduler
from .exceptions import report
from .future import Future
from .members import Members, Phase
from .thread import VirtualThread

__all__ = ["BackgroundGroup"]


class BackgroundGroup(Members):
    """The members of a carrier, such as those of `vthreads.spawn`: independent failures, each reported at once."""

    # The end of the last member is not the end of the group: threads of other groups may still spawn into it.
    _phase_when_empty = Phase.OPEN

    def __init__(self, scheduler: Scheduler, name: str = "background") -> None:
        super().__init__(name, CancelScope(), "continue")
        self._scope._group = self
        self._home = scheduler
        self._phase = Phase.OPEN

    def _scheduler(self) -> Scheduler:
        return self._home

    def _scheduler_for(self, caller: VirtualThread | None) -> Scheduler:
        return self._home

    def _failed(self, error: BaseException, thread: VirtualThread, future: Future[Any] | None) -> None:
        report(error, thread)

    def make_thread(self, fn: Callable[..., Any], args: tuple[Any, ...], context: Context) -> VirtualThread:
        """Create a member that calls `fn(*args)` in `context`; `launch` starts it."""
        return self._admit(running(), (fn, args, {}), context)

    def launch(self, thread: VirtualThread) -> None:
        """Start a member that `make_thread` has created; it runs at once, up to its first park."""
        self._launch(thread)

    def end(self, root: VirtualThread, reason: str) -> None:
        """Cancel all members, and abandon those that do not end within their cleanup grace."""
        if not self._members:
            return
        self.cancel(reason)
        now = root._scheduler.clock.now
        until = now() + self._scope._grace()
        try:
            while self._members and now() < until:
                self._empty.add(root)
                self._empty.park(root, until - now())
        finally:
            for thread in self._members:
                # Prevent their collection, which would run their `finally` blocks on any stack.
                Py_INCREF(thread)

    def join(self, root: VirtualThread) -> None:
        """Wait until no member is left. An interrupt cancels the members and is raised at the end."""
        self._body = root
        self._wait_for_members(root)
        for failure in self._take_failures():
            raise failure
