"""Snapshot that `Semaphore.statistics` returns. Loaded at the first call, because `dataclasses` imports much."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SemaphoreStatistics"]


@dataclass(frozen=True)
class SemaphoreStatistics:
    """Snapshot of a semaphore: free permits and waiting threads."""

    value: int
    waiting: int
