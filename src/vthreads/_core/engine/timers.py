"""A heap of owners with a time each. An owner has one method, `expire()`; nothing else of it is known here."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from itertools import count
from math import inf
from typing import Protocol

__all__ = ["Timer", "Timers"]


class Owner(Protocol):
    """What a timer belongs to."""

    def expire(self) -> None: ...


class Timer:
    """One entry of the heap; cancelled by dropping its owner."""

    __slots__ = ("_number", "owner", "when")

    def __init__(self, when: float, number: int, owner: Owner) -> None:
        self.when = when
        self._number = number
        self.owner: Owner | None = owner

    def __lt__(self, other: Timer) -> bool:
        return (self.when, self._number) < (other.when, other._number)


class Timers:
    """Timers of one scheduler; used on its OS thread only."""

    def __init__(self) -> None:
        self._heap: list[Timer] = []
        self._numbers = count()
        self._cancelled = 0

    def __len__(self) -> int:
        return len(self._heap) - self._cancelled

    def __iter__(self) -> Iterator[tuple[float, Owner]]:
        """Each timer that was not cancelled, as time and owner, in no order. For looking at, from any OS thread."""
        return iter([(timer.when, owner) for timer in self._heap if (owner := timer.owner) is not None])

    def add(self, when: float, owner: Owner) -> Timer:
        """Let `owner.expire()` be called at `when` (clock seconds)."""
        timer = Timer(when, next(self._numbers), owner)
        heappush(self._heap, timer)
        return timer

    def cancel(self, timer: Timer) -> None:
        """Nothing happens if it expired already."""
        if timer.owner is None:
            return
        timer.owner = None
        self._cancelled += 1
        # Most timeouts are cancelled long before they are due; left in place they would fill the heap.
        if self._cancelled > 64 and self._cancelled * 2 > len(self._heap):
            self._heap = [timer for timer in self._heap if timer.owner is not None]
            heapify(self._heap)
            self._cancelled = 0

    def due(self) -> float:
        """When the earliest timer is due; `inf` without one."""
        heap = self._heap
        while heap and heap[0].owner is None:
            heappop(heap)
            self._cancelled -= 1
        return heap[0].when if heap else inf

    def expire(self, now: float) -> bool:
        """Expire all that are due, earliest first; tell whether there was one."""
        any_expired = False
        while self.due() <= now:
            timer = heappop(self._heap)
            owner, timer.owner = timer.owner, None
            assert owner is not None
            owner.expire()
            any_expired = True
        return any_expired
