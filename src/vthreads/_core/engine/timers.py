"""A heap of timers. Each has an owner with one method, `_expire()`; the heap uses nothing else of it."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from itertools import count
from math import inf
from typing import Protocol

from ..repeated import repeated_in

__all__ = ["Timer", "Timers"]


class Owner(Protocol):
    """The owner of a timer."""

    def _expire(self) -> None: ...


class Timer:
    """An entry of the heap; it is cancelled by dropping its owner."""

    __slots__ = ("owner",)

    def __init__(self, owner: Owner) -> None:
        self.owner: Owner | None = owner


@repeated_in("_core/engine/compiled/timers.pxi")
class Timers:
    """The timers of one scheduler; used on its OS thread only."""

    def __init__(self) -> None:
        # Unique numbers decide ties, so tuples are compared in C without Python code. A finalizer then never sees the
        # heap half sorted.
        self._heap: list[tuple[float, int, Timer]] = []
        self._numbers = count()
        self._cancelled = 0
        # Number of changes of the heap.
        self._changes = 0

    def __len__(self) -> int:
        return len(self._heap) - self._cancelled

    def __iter__(self) -> Iterator[tuple[float, Owner]]:
        """Yield time and owner of each active timer, in no order. For inspection, from any OS thread."""
        return iter([(when, owner) for when, _, timer in self._heap if (owner := timer.owner) is not None])

    def add(self, when: float, owner: Owner) -> Timer:
        """Add a timer that calls `owner._expire()` at the clock time `when`."""
        timer = Timer(owner)
        entry = when, next(self._numbers), timer
        self._changes += 1
        heappush(self._heap, entry)
        return timer

    def cancel(self, timer: Timer) -> None:
        """Cancel a timer; does nothing if it has expired already."""
        if timer.owner is None:
            return
        timer.owner = None
        self._cancelled += 1
        # Most timeouts are cancelled long before they are due. If they stayed, they would fill the heap.
        if self._cancelled > 64 and self._cancelled * 2 > len(self._heap):
            self._sweep()

    def _sweep(self) -> None:
        """Remove cancelled timers, unless a finalizer changes the heap meanwhile; then a later call does it."""
        self._changes += 1
        before = self._changes
        left = [entry for entry in self._heap if entry[2].owner is not None]
        heapify(left)
        if self._changes == before:
            self._cancelled -= len(self._heap) - len(left)
            self._heap = left

    def due(self) -> float:
        """Return the time of the earliest timer; `inf` if there is none."""
        while self._heap and self._heap[0][2].owner is None:
            self._pop()
            self._cancelled -= 1
        return self._heap[0][0] if self._heap else inf

    def expire(self, now: float) -> bool:
        """Expire all timers that are due, earliest first; return whether there was one."""
        any_expired = False
        while self.due() <= now:
            timer = self._pop()
            owner, timer.owner = timer.owner, None
            if owner is None:
                # A finalizer has cancelled it after the check.
                self._cancelled -= 1
                continue
            owner._expire()
            any_expired = True
        return any_expired

    def _pop(self) -> Timer:
        self._changes += 1
        return heappop(self._heap)[2]
