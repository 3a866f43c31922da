"""Trace and profile functions of a virtual thread for itself: those that `threading` sets in what it starts.

CPython keeps them per OS thread, and a switch leaves them there. While a thread of a carrier has its own, the switches
are watched, and the functions of whoever runs are put there. All other threads of the carrier share theirs: what
coverage or a debugger has set by `sys.settrace` sees them all.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

from .._core.current import running
from .._core.thread import VirtualThread
from ..local import OSThreadLocal
from ..switches import watch_switches

__all__ = ["trace_alone"]


class _Tracing(OSThreadLocal):
    """That of one carrier."""

    def __init__(self) -> None:
        self._alone: set[VirtualThread] = set()
        # Whose functions are in force, and those of all that wait; None: of those that share theirs.
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

    def _switched(self) -> None:
        thread = running()
        whose = thread if thread in self._alone else None
        if whose is not self._shown:
            self._away[self._shown] = sys.gettrace(), sys.getprofile()
            self._show(whose)

    def _show(self, whose: VirtualThread | None) -> None:
        trace, profile = self._away.pop(whose)
        self._shown = whose
        # Of what C code has set, only an object is known, or nothing at all: what is the same is left alone, and what
        # cannot be called could not be set.
        if sys.gettrace() is not trace:
            sys.settrace(trace if callable(trace) else None)
        if sys.getprofile() is not profile:
            sys.setprofile(profile if callable(profile) else None)


_tracing = _Tracing()


def trace_alone(thread: VirtualThread) -> Callable[[], None]:
    """Keep to `thread`, which runs here, what it is traced by from now on if `threading` traces; what ends that."""
    if threading.gettrace() is None and threading.getprofile() is None:
        return _traced_like_all
    _tracing.begin(thread)
    return lambda: _tracing.end(thread)


def _traced_like_all() -> None:
    """There is nothing to put back."""
