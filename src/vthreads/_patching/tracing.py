"""Separate trace and profile functions for a virtual thread: those that `threading` sets in threads that it starts.

CPython stores them per OS thread, and a switch does not change them. So while a thread of a carrier has its own, each
switch is watched and installs the functions of the thread that runs next. All other threads of the carrier share one
pair: functions that coverage or a debugger set by `sys.settrace` see all of them.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

from .._core.current import carriers
from .._core.originals import get_ident
from .._core.thread import VirtualThread
from .._os_threads.switches import watch_switches
from .._sync.local import OSThreadLocal

__all__ = ["trace_alone"]


class _Tracing(OSThreadLocal):
    """The trace and profile functions of one carrier."""

    def __init__(self) -> None:
        self._alone: set[VirtualThread] = set()
        # The thread whose functions are installed, and the saved ones of the others. None stands for the shared pair.
        self._shown: VirtualThread | None = None
        self._away: dict[VirtualThread | None, tuple[Any, Any]] = {}
        self._unwatch: Callable[[], None]

    def begin(self, thread: VirtualThread) -> None:
        if not self._alone:
            self._unwatch = watch_switches(self._switched)
        self._alone.add(thread)
        self._away[None] = sys.gettrace(), sys.getprofile()
        self._shown = thread

    def end(self, thread: VirtualThread) -> None:
        self._alone.discard(thread)
        self._show(None)
        if not self._alone:
            self._unwatch()

    def _switched(self, thread: VirtualThread | None) -> None:
        whose = thread if thread in self._alone else None
        if whose is not self._shown:
            scheduler = carriers.get(get_ident())
            if scheduler is not None and scheduler.running is None:
                # Suspended, so that the functions set here are not called before the thread has landed.
                scheduler.suspend_tracing()
            self._away[self._shown] = sys.gettrace(), sys.getprofile()
            self._show(whose)

    def _show(self, whose: VirtualThread | None) -> None:
        trace, profile = self._away.pop(whose)
        self._shown = whose
        # `sys.gettrace` returns an internal object, or None, for a function that C code has set. So leave an unchanged
        # one alone, and do not set an object that cannot be called.
        if sys.gettrace() is not trace:
            sys.settrace(trace if callable(trace) else None)
        if sys.getprofile() is not profile:
            sys.setprofile(profile if callable(profile) else None)


_tracing = _Tracing()


def trace_alone(thread: VirtualThread) -> Callable[[], None]:
    """Start separate tracing for `thread`, which runs here, if `threading` traces; return the function that ends it."""
    if threading.gettrace() is None and threading.getprofile() is None:
        return _traced_like_all
    _tracing.begin(thread)
    return lambda: _tracing.end(thread)


def _traced_like_all() -> None:
    """Do nothing: no trace function was set."""
