"""Call functions after every switch of an OS thread, to swap state that CPython keeps per OS thread.

They share the trace function of greenlet (`greenlet.settrace`), also with an owner that set it before. While no
function is registered, no trace function is set, and a switch costs nothing extra.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from greenlet import gettrace, settrace

from .._core.current import carriers
from .._core.originals import get_ident
from .._core.thread import VirtualThread
from .._sync.local import OSThreadLocal

__all__ = ["watch_switches"]

# Called with the virtual thread that was switched to, before it runs; None inside the scheduler.
OnSwitch = Callable[[VirtualThread | None], None]


class _Watchers(OSThreadLocal):
    """The functions of one OS thread."""

    def __init__(self) -> None:
        self._callbacks: list[OnSwitch] = []
        self._is_tracing = False
        self._traced_before: Any = None

    def add(self, callback: OnSwitch) -> None:
        # If our trace function is still set below another one, setting it again would make it call itself. But the
        # other owner may have removed it: then `gettrace` returns None.
        if not self._is_tracing or gettrace() is None:
            self._traced_before = settrace(self._switched)
            self._is_tracing = True
        self._callbacks = [*self._callbacks, callback]

    def remove(self, removed: OnSwitch) -> None:
        self._callbacks = [callback for callback in self._callbacks if callback != removed]
        if not self._callbacks and gettrace() == self._switched:
            settrace(self._traced_before)
            self._is_tracing = False

    def _switched(self, event: str, ends: Any) -> None:
        scheduler = carriers.get(get_ident())
        # A greenlet that the program created inside a virtual thread counts as that virtual thread.
        thread = None if scheduler is None else scheduler.arriving or scheduler.running
        for callback in self._callbacks:
            callback(thread)
        if self._traced_before is not None:
            self._traced_before(event, ends)


_watchers = _Watchers()


def watch_switches(callback: OnSwitch) -> Callable[[], None]:
    """Call `callback` after each switch of this OS thread; return a function that ends that, for the same OS thread."""
    _watchers.add(callback)
    return partial(_watchers.remove, callback)
