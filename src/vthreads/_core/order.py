"""The order in which ready threads run: first in, first out, or shuffled by a seed.

An order creates run queues; a run queue defines `append(fiber)`, `popleft()` and `len()`, like a `deque`.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from random import Random

__all__ = ["FifoOrder", "Order", "RunQueue", "SeededOrder"]


class RunQueue(Protocol):
    """The methods of a run queue that the scheduler calls."""

    def append(self, fiber: Any, /) -> None: ...

    def popleft(self) -> Any: ...

    def __len__(self) -> int: ...


class Order(Protocol):
    """Creates the run queue of a scheduler."""

    def run_queue(self) -> RunQueue: ...


class FifoOrder:
    """Ready threads run in the order in which they became ready."""

    def run_queue(self) -> RunQueue:
        return deque()


class SeededOrder:
    """Ready threads run in a random order: the same seed gives the same schedule.

    Args:
        seed: any int; part of a failing test's name.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __repr__(self) -> str:
        return f"SeededOrder({self.seed})"

    def run_queue(self) -> RunQueue:
        # Most programs do not shuffle, so the module is imported here.
        from random import Random

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
        # Swap the chosen fiber with the last one, so that removing it is O(1).
        fibers = self._fibers
        chosen = self._random.randrange(len(fibers))
        fibers[chosen], fibers[-1] = fibers[-1], fibers[chosen]
        return fibers.pop()
