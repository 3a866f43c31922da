"""Which ready thread runs next: first in, first out, or shuffled from a seed.

An order makes run queues; a run queue defines `append(fiber)`, `popleft()` and `len()`. A `deque` is one.
"""

from __future__ import annotations

from collections import deque
from random import Random
from typing import Any, Protocol

__all__ = ["FifoOrder", "Order", "RunQueue", "SeededOrder"]


class RunQueue(Protocol):
    """What the scheduler asks of a run queue."""

    def append(self, fiber: Any, /) -> None: ...

    def popleft(self) -> Any: ...

    def __len__(self) -> int: ...


class Order(Protocol):
    """Makes the run queue of a scheduler."""

    def run_queue(self) -> RunQueue: ...


class FifoOrder:
    """Ready threads run in the order in which they became ready."""

    def run_queue(self) -> RunQueue:
        return deque()


class SeededOrder:
    """Ready threads run in an order drawn from `seed`: the same seed, the same schedule.

    Args:
        seed: any int; part of a failing test's name.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __repr__(self) -> str:
        return f"SeededOrder({self.seed})"

    def run_queue(self) -> RunQueue:
        return _ShuffledQueue(Random(self.seed))


class _ShuffledQueue:
    def __init__(self, random: Random) -> None:
        self._random = random
        self._fibers: list[Any] = []

    def __len__(self) -> int:
        return len(self._fibers)

    def append(self, fiber: Any, /) -> None:
        self._fibers.append(fiber)

    def popleft(self) -> Any:
        # The chosen one changes places with the last, so that taking it out is O(1).
        fibers = self._fibers
        chosen = self._random.randrange(len(fibers))
        fibers[chosen], fibers[-1] = fibers[-1], fibers[chosen]
        return fibers.pop()
