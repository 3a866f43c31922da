"""Snapshots that `statistics()` returns. Loaded at the first call, because `dataclasses` imports much."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "BarrierStatistics",
    "ChannelStatistics",
    "ConditionStatistics",
    "EventStatistics",
    "LockStatistics",
    "QueueStatistics",
    "RwLockStatistics",
]


@dataclass(frozen=True)
class BarrierStatistics:
    """Snapshot of a barrier: waiting threads, required threads, and whether it is broken."""

    waiting: int
    parties: int
    broken: bool


@dataclass(frozen=True)
class ChannelStatistics:
    """Snapshot of a channel: items in its buffer, waiting senders and receivers."""

    buffered: int
    waiting: int
    senders: int
    receivers: int
    closed: bool


@dataclass(frozen=True)
class ConditionStatistics:
    """Snapshot of a condition: the number of threads that wait for a notify."""

    waiting: int


@dataclass(frozen=True)
class EventStatistics:
    """Snapshot of an event: its flag and the number of waiters."""

    is_set: bool
    waiting: int


@dataclass(frozen=True)
class LockStatistics:
    """Snapshot of a lock: whether it is held, the ident of its owner (None if unknown), and the number of waiters."""

    locked: bool
    owner: int | None
    waiting: int


@dataclass(frozen=True)
class QueueStatistics:
    """Snapshot of a queue: its items, and the threads that wait to get, to put and to join."""

    size: int
    waiting: int
    getters: int
    putters: int
    joiners: int


@dataclass(frozen=True)
class RwLockStatistics:
    """Snapshot of an `RwLock`: number of readers, whether a writer holds it, and number of waiters."""

    readers: int
    writing: bool
    waiting: int
