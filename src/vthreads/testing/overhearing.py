"""An observer of a scheduler that leaves the one before it in its place: each hears of everything."""

from __future__ import annotations

from typing import Any

from .._core.engine import Scheduler

__all__ = ["Overhearing"]


class Overhearing:
    """Stands before the observer of `scheduler`, which goes on hearing. Subclasses listen to what they need."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._before = scheduler.observer
        scheduler.observer = self

    def leave(self) -> None:
        """Step aside: the observer before is the only one again."""
        self._scheduler.observer = self._before

    def parked(self, fiber: Any) -> None:
        if self._before is not None:
            self._before.parked(fiber)

    def readied(self, fiber: Any) -> None:
        if self._before is not None:
            self._before.readied(fiber)

    def runs(self, fiber: Any) -> None:
        if self._before is not None:
            self._before.runs(fiber)

    def ended(self, fiber: Any) -> None:
        if self._before is not None:
            self._before.ended(fiber)
