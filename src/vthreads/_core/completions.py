"""The futures of group members that have ended: those that are still referenced, and an iterator over all to come.

A group must not keep results that no code can ask for, so it refers to ended futures weakly. It counts all that have
ended, and so detects that some are gone. This module does not depend on how a member ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any
from weakref import ref

from .current import check_here, running
from .engine import Section, compiled
from .engine.states import FEWEST_ENDED
from .future import Future
from .thread import VirtualThread
from .wait_queue import WaitQueue, waiter_here

__all__ = ["Completions", "EndedFutures"]


@compiled
class EndedFutures:
    """The futures of members that have ended, in that order, as long as other code refers to them.

    The group serializes access from OS threads. A finalizer may add a future at any allocation.

    Attributes:
        count: number of ended members, including those whose futures are gone.
    """

    __slots__ = ("_limit", "_references", "count")

    def __init__(self) -> None:
        self.count = 0
        # Weak references without callbacks, which would cost more than all the rest. Dead ones are dropped when the
        # list has doubled, so each reference is checked about twice.
        self._references: list[ref[Future[Any]]] = []
        self._limit: float = FEWEST_ENDED

    def add(self, future: Future[Any]) -> None:
        self.count += 1
        self._references.append(ref(future))
        if len(self._references) >= self._limit:
            self._drop_dead()

    def held(self) -> list[Future[Any]]:
        # Iterate over a copy: a finalizer may add a future meanwhile, and so drop dead references.
        return [future for reference in list(self._references) if (future := reference()) is not None]

    def _drop_dead(self) -> None:
        # Compact in place. The limit keeps a finalizer that runs meanwhile from compacting too; it only appends.
        self._limit = float("inf")
        alive = 0
        for reference in self._references:
            if reference() is not None:
                self._references[alive] = reference
                alive += 1
        del self._references[alive:]
        self._limit = max(FEWEST_ENDED, 2 * alive)


class Completions(Iterator[Future[Any]]):
    """The iterator of `ThreadGroup.as_completed`: the given futures, then those of members that end from now on.

    Args:
        members: the threads that have not ended, updated by their group.
        changing: the lock of the group for changes of `members`.
        ended: the first futures.
    """

    def __init__(self, members: dict[VirtualThread, None], changing: Section, ended: Iterable[Future[Any]]) -> None:
        self._members = members
        self._changing = changing
        self._futures = deque(ended)
        self._waiting = WaitQueue()

    def add(self, future: Future[Any]) -> None:
        """Add the future of a member that has ended; called with the lock of the group held."""
        self._futures.append(future)
        self._waiting.unpark_all()

    def __next__(self) -> Future[Any]:
        check_here()
        while True:
            with self._changing:
                if self._futures:
                    return self._futures.popleft()
                # A member that iterates does not wait for its own end.
                if len(self._members) == (running() in self._members):
                    raise StopIteration
                waiter = waiter_here()
                self._waiting.add(waiter)
                # While a finalizer ran, a member may have ended after the check. So check again.
                missed = self._futures and self._waiting.withdraw(waiter)
            if not missed:
                self._waiting.park(waiter)
