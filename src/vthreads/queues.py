"""Queues, shaped as in `queue`, fair, cancellable, for all kinds of threads.

An item goes from hand to hand: to the getter that waits longest, or from the putter that waits longest. So a getter
that was unparked has its item, and one that was cancelled before has taken none.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ._core.current import checkpoint, give_way
from ._core.engine import TIMED_OUT, Section, compiled
from ._core.wait_queue import Waiter, WaitQueue, waiter_here
from .errors import Empty, Full, ShutDown

__all__ = ["LifoQueue", "PriorityQueue", "Queue", "QueueStatistics", "SimpleQueue"]

T = TypeVar("T")


@dataclass(frozen=True)
class QueueStatistics:
    """A look at a queue: its items, and how many wait to get, to put and to join."""

    size: int
    waiting: int
    getters: int
    putters: int
    joiners: int


class _ShutDown:
    """What waiters of a queue that was shut down are unparked with."""


SHUT_DOWN = _ShutDown()


class _Refused:
    """What a putter is unparked with whose item cannot be compared with the others."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class _Offer:
    """A putter that waits for room, with its item. Whoever makes room passes the function that takes the item."""

    __slots__ = ("_item", "_waiter")

    def __init__(self, waiter: Waiter, item: Any) -> None:
        self._waiter = waiter
        self._item = item

    def unpark(self, take: Callable[[Any], object] | _ShutDown) -> bool:
        if isinstance(take, _ShutDown):
            return self._waiter.unpark(take)
        try:
            take(self._item)
        except BaseException as error:  # noqa: BLE001 - raised in the putter, whose item it is
            self._waiter.unpark(_Refused(error))
            # The room is for the next one.
            return False
        return self._waiter.unpark(True)


def _may_wait(block: bool, timeout: float | None) -> bool:
    if block and timeout is not None and not timeout >= 0:
        raise ValueError("'timeout' must be a non-negative number")
    return block and timeout != 0


@compiled
class _Exchange(Generic[T]):
    """What all queues share: items, getters, putters. Subclasses say how items are stored."""

    def __init__(self, maxsize: int = 0) -> None:
        self.maxsize = maxsize
        self._items = self._new_items()
        # Reentrant, because a finalizer that puts may run inside.
        self._changing = Section()
        self._getting = WaitQueue()
        self._putting = WaitQueue()
        self.is_shutdown = False

    def __repr__(self) -> str:
        waiters = f"getters={len(self._getting)} putters={len(self._putting)}"
        return f"<{type(self).__name__} size={self.qsize()} maxsize={self.maxsize} {waiters}>"

    def _new_items(self) -> Any:
        return deque()

    def _store(self, item: T) -> None:
        self._items.append(item)

    def _take(self) -> T:
        item: T = self._items.popleft()
        return item

    def _accepted(self) -> None:
        """One more item was put."""

    def _accept(self, item: T) -> None:
        """Hand `item` to a getter that waits, or store it."""
        if not self._getting.unpark_one(item):
            self._store(item)
        self._accepted()

    def _has_room(self) -> bool:
        return self.maxsize <= 0 or len(self._items) < self.maxsize

    def _put(self, item: T, block: bool, timeout: float | None) -> None:
        waits = _may_wait(block, timeout)
        if waits and self.maxsize > 0:
            checkpoint()
        elif waits:
            # An unbounded queue has room at once: a cancelled thread gives back what it has.
            give_way()
        with self._changing:
            if self.is_shutdown:
                raise ShutDown
            if self._has_room():
                return self._accept(item)
            if not waits:
                raise Full
            waiter = waiter_here()
            offer = _Offer(waiter, item)
            self._putting.add(offer)
            missed = (self._has_room() or self.is_shutdown) and self._putting.withdraw(offer)
        if missed:
            # A finalizer got or shut down between the look and the queueing.
            return self._put(item, block, timeout)
        answer = waiter.park(lambda: self._putting.withdraw(offer), timeout)
        if answer is TIMED_OUT:
            raise Full
        if answer is SHUT_DOWN:
            raise ShutDown
        if isinstance(answer, _Refused):
            raise answer.error
        return None

    def _get(self, block: bool, timeout: float | None) -> T:
        waits = _may_wait(block, timeout)
        if waits:
            checkpoint()
        with self._changing:
            if self._items:
                item = self._take()
                self._putting.unpark_one(self._accept)
                return item
            if self.is_shutdown:
                raise ShutDown
            if not waits:
                raise Empty
            waiter = waiter_here()
            self._getting.add(waiter)
            missed = (self._items or self.is_shutdown) and self._getting.withdraw(waiter)
        if missed:
            # A finalizer put or shut down between the look and the queueing.
            return self._get(block, timeout)
        answer = self._getting.park(waiter, timeout)
        if answer is TIMED_OUT:
            raise Empty
        if answer is SHUT_DOWN:
            raise ShutDown
        return answer  # type: ignore[no-any-return]  # the item, handed over

    def qsize(self) -> int:
        """Items in the queue right now. Not a checkpoint; thread-safe."""
        return len(self._items)

    def empty(self) -> bool:
        """Whether there is no item right now. Not a checkpoint; thread-safe."""
        return not self._items

    def put_nowait(self, item: T) -> None:
        """`put(item, block=False)`. Never a checkpoint; thread-safe."""
        self._put(item, False, None)

    def get_nowait(self) -> T:
        """`get(block=False)`. Never a checkpoint; thread-safe."""
        return self._get(False, None)

    def _waiting_to_join(self) -> int:
        return 0

    def statistics(self) -> QueueStatistics:
        """Items and waiters right now. Not a checkpoint; thread-safe."""
        getters, putters, joiners = len(self._getting), len(self._putting), self._waiting_to_join()
        return QueueStatistics(self.qsize(), getters + putters + joiners, getters, putters, joiners)


class SimpleQueue(_Exchange[T]):
    """As `queue.SimpleQueue`: unbounded, and `put` may be called from a finalizer."""

    def __init__(self) -> None:
        super().__init__()

    @compiled
    def put(self, item: T, block: bool = True, timeout: float | None = None) -> None:
        """Put `item`. Never waits and is no checkpoint; `block` and `timeout` are ignored. Thread-safe."""
        self._put(item, False, None)

    @compiled
    def get(self, block: bool = True, timeout: float | None = None) -> T:
        """Take the oldest item, waiting for one if `block`. A checkpoint then; thread-safe.

        Args:
            block: whether to wait.
            timeout: seconds, or None for no limit; 0 not to wait.

        Raises:
            Empty: there was none (in time); nothing was taken.
            ValueError: the timeout is negative.
        """
        return self._get(block, timeout)


class Queue(_Exchange[T]):
    """As `queue.Queue`, first in, first out.

    Args:
        maxsize: items it holds before `put` waits; 0 or less: any number.
    """

    def __init__(self, maxsize: int = 0) -> None:
        super().__init__(maxsize)
        self.unfinished_tasks = 0
        self._joining = WaitQueue()

    def _accepted(self) -> None:
        self.unfinished_tasks += 1

    def _waiting_to_join(self) -> int:
        return len(self._joining)

    def full(self) -> bool:
        """Whether `put` would wait right now. Not a checkpoint; thread-safe."""
        return 0 < self.maxsize <= len(self._items)

    @compiled
    def put(self, item: T, block: bool = True, timeout: float | None = None) -> None:
        """Put `item`, waiting for room if `block`. Thread-safe. If it raises, nothing was put.

        A checkpoint then, unless the queue is unbounded and there always is room.

        Args:
            item: anything.
            block: whether to wait.
            timeout: seconds, or None for no limit; 0 not to wait.

        Raises:
            Full: there was no room (in time).
            ShutDown: the queue was shut down.
            ValueError: the timeout is negative.
        """
        self._put(item, block, timeout)

    @compiled
    def get(self, block: bool = True, timeout: float | None = None) -> T:
        """Take the next item, waiting for one if `block`. A checkpoint then; thread-safe. If it raises, none was taken.

        Args:
            block: whether to wait.
            timeout: seconds, or None for no limit; 0 not to wait.

        Raises:
            Empty: there was none (in time).
            ShutDown: the queue was shut down and holds no more.
            ValueError: the timeout is negative.
        """
        return self._get(block, timeout)

    def task_done(self) -> None:
        """Say that an item that was taken is dealt with. Not a checkpoint; thread-safe.

        Raises:
            ValueError: called more often than there were items.
        """
        with self._changing:
            if self.unfinished_tasks <= 0:
                raise ValueError("task_done() called too many times")
            self._finished(1)

    def _finished(self, tasks: int) -> None:
        self.unfinished_tasks -= tasks
        if not self.unfinished_tasks:
            self._joining.unpark_all()

    def join(self) -> None:
        """Wait until `task_done` was called for every item put. A checkpoint; thread-safe."""
        checkpoint()
        waiter = waiter_here()
        with self._changing:
            if not self.unfinished_tasks:
                return
            self._joining.add(waiter)
            if not self.unfinished_tasks:
                # A finalizer was faster.
                self._joining.unpark_all()
        self._joining.park(waiter)

    def shutdown(self, immediate: bool = False) -> None:
        """End the queue, as in Python 3.13: `put` raises `ShutDown`, `get` does once it is empty. Not a checkpoint.

        Args:
            immediate: throw away what is in it, and count it as dealt with.
        """
        with self._changing:
            self.is_shutdown = True
            if immediate and self._items:
                thrown_away = len(self._items)
                self._items = self._new_items()
                self._finished(min(thrown_away, self.unfinished_tasks))
            self._getting.unpark_all(SHUT_DOWN)
            self._putting.unpark_all(SHUT_DOWN)


class LifoQueue(Queue[T]):
    """As `queue.LifoQueue`: last in, first out."""

    def _new_items(self) -> Any:
        return []

    def _take(self) -> T:
        item: T = self._items.pop()
        return item


class PriorityQueue(Queue[T]):
    """As `queue.PriorityQueue`: the lowest first."""

    def _new_items(self) -> Any:
        return []

    def _store(self, item: T) -> None:
        try:
            heapq.heappush(self._items, item)
        except BaseException:
            # It cannot be compared, and is somewhere in the heap by now.
            del self._items[[id(other) for other in self._items].index(id(item))]
            heapq.heapify(self._items)
            raise

    def _take(self) -> T:
        item: T = heapq.heappop(self._items)
        return item
