"""Who is told of every switch of an OS thread: what keeps per virtual thread something that CPython keeps per OS one.

All share what greenlet has for it (`greenlet.settrace`), with whoever had that before as well. While nobody is told
nothing is traced, and a switch costs what it costs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from greenlet import gettrace, settrace

from .local import OSThreadLocal

__all__ = ["watch_switches"]


class _Watchers(OSThreadLocal):
    """Those of one OS thread."""

    def __init__(self) -> None:
        self._told: list[Callable[[], None]] = []
        self._is_tracing = False
        self._traced_before: Any = None

    def add(self, tell: Callable[[], None]) -> None:
        # Still there, below somebody else's, it would come to call itself; but that one may have taken it away.
        if not self._is_tracing or gettrace() is None:
            self._traced_before = settrace(self._switched)
            self._is_tracing = True
        self._told = [*self._told, tell]

    def remove(self, tell: Callable[[], None]) -> None:
        self._told = [told for told in self._told if told != tell]
        if not self._told and gettrace() == self._switched:
            settrace(self._traced_before)
            self._is_tracing = False

    def _switched(self, event: str, ends: Any) -> None:
        for tell in self._told:
            tell()
        if self._traced_before is not None:
            self._traced_before(event, ends)


_watchers = _Watchers()


def watch_switches(tell: Callable[[], None]) -> Callable[[], None]:
    """Call `tell` after each switch of this OS thread, in the one that runs then; what ends that, to be called here."""
    _watchers.add(tell)
    return partial(_watchers.remove, tell)
