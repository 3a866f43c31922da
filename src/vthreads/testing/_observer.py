"""An observer of a scheduler that passes each event on to the observer before it."""

from __future__ import annotations

from typing import Any

from .._core.engine import Scheduler

__all__ = ["FiberObserver"]


class FiberObserver:
    """Replaces the observer of `scheduler` and calls it for every event. Subclasses add what they need."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._before = scheduler.observer
        scheduler.observer = self

    def leave(self) -> None:
        """Restore the previous observer."""
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
