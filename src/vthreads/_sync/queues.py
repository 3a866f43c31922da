"""Fair, cancellable queues with the interface of `queue`, for virtual threads of any carrier and plain OS threads.

An item is passed directly to the getter that has waited longest, and taken directly from the putter that has waited
longest. So a getter that was unparked owns its item, and a getter that was cancelled before has taken none.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from .._core.arguments import checked_timeout
from .._core.copies import refuse_copy
from .._core.current import check_here, give_way
from .._core.engine import TIMED_OUT, Section, State, compiled, supply
from .._core.on_demand import ModuleOnDemand
from .._core.repeated import repeated_in
from .._core.wait_queue import Waiter, WaitQueue, waiter_here
from ..errors import Empty, Full, ShutDown

if TYPE_CHECKING:
    from . import statistics as snapshots
else:
    snapshots = ModuleOnDemand("vthreads._sync.statistics")

__all__ = ["LifoQueue", "PriorityQueue", "Queue", "SimpleQueue"]

T = TypeVar("T")


class _ShutDown:
    """Type of `SHUT_DOWN`, the value that unparks waiters when their queue is shut down."""


SHUT_DOWN = _ShutDown()


class _Refused:
    """The value that unparks a putter whose item could not be stored, for example because it cannot be compared."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


def _queue_statistics(size: int, waiting: int, getters: int, putters: int, joiners: int) -> snapshots.QueueStatistics:
    """Return the snapshot; a function, so that its class is loaded at the first call."""
    return snapshots.QueueStatistics(size, waiting, getters, putters, joiners)


supply(__name__, statistics=_queue_statistics, refused=_Refused, shut_down=SHUT_DOWN)


@repeated_in("_sync/compiled/queues.pxi")
class _Offer:
    """A waiting putter and its item. To unpark it, a getter passes a function that accepts the item."""

    __slots__ = ("_item", "_waiter")

    def __init__(self, waiter: Waiter, item: Any) -> None:
        self._waiter = waiter
        self._item = item

    def _unpark(self, take: Callable[[Any], object] | _ShutDown) -> bool:
        if isinstance(take, _ShutDown):
            return self._waiter._unpark(take)
        if self._waiter.state is State.ENDED:
            # Its thread did not survive a fork. The item stays in the parent.
            return False
        try:
            take(self._item)
        except BaseException as error:  # noqa: BLE001 - raised in the putter, to which the item belongs
            self._waiter._unpark(_Refused(error))
            # The item was not stored, so the room goes to the next putter.
            return False
        return self._waiter._unpark(True)


@repeated_in("_sync/compiled/queues.pxi")
def _seconds_to_wait(block: bool, timeout: float | None) -> float | None:
    """Return the seconds that a call may wait: None for no limit, 0 for none."""
    if not block:
        # As in `queue`, the timeout is ignored in this case.
        return 0
    seconds = checked_timeout(timeout)
    if seconds is not None and seconds < 0:
        raise ValueError("'timeout' must be a non-negative number")
    return seconds


def _checked_size(maxsize: Any) -> Any:
    # Like `queue`, accept a float too. Refuse NaN: a queue of that size would never have room.
    if hasattr(type(maxsize), "__index__") or isinstance(maxsize, float) and maxsize == maxsize:
        return maxsize
    raise TypeError(f"maxsize={maxsize!r} is not a number of items; give an int, or 0 for no limit")


@compiled
class _Exchange(Generic[T]):
    """Common part of all queues: items, getters, putters. Subclasses define how items are stored."""

    def __init__(self, maxsize: int = 0) -> None:
        self.maxsize = maxsize
        self._items = self._new_items()
        # Reentrant: the garbage collector may run a finalizer that puts an item while this thread holds it.
        self._changing = Section()
        self._getting = WaitQueue()
        self._putting = WaitQueue()
        self.is_shutdown = False

    def __reduce__(self) -> NoReturn:
        refuse_copy(self)

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
        """Count an item that was put."""

    def _accept(self, item: T) -> None:
        """Pass `item` to the first waiting getter, or store it."""
        if not self._getting.unpark_one(item):
            self._store(item)
        self._accepted()

    def _has_room(self) -> bool:
        return self.maxsize <= 0 or len(self._items) < self.maxsize

    def _put(self, item: T, block: bool, timeout: float | None) -> None:
        seconds = _seconds_to_wait(block, timeout)
        waits = seconds != 0
        if waits and self.maxsize > 0:
            check_here()
        elif waits:
            # An unbounded queue always has room, so `put` is not a checkpoint: a cancelled thread can return its
            # items to it. Only give other threads a turn.
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
            # A finalizer took an item or shut the queue down after the check and before this putter was queued.
            return self._put(item, block, timeout)
        answer = waiter._park(lambda: self._putting.withdraw(offer), seconds)
        if answer is TIMED_OUT:
            raise Full
        if answer is SHUT_DOWN:
            raise ShutDown
        if isinstance(answer, _Refused):
            raise answer.error
        return None

    def _get(self, block: bool, timeout: float | None) -> T:
        seconds = _seconds_to_wait(block, timeout)
        waits = seconds != 0
        if waits:
            check_here()
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
            # A finalizer put an item or shut the queue down after the check and before this getter was queued.
            return self._get(block, timeout)
        answer = self._getting.park(waiter, seconds)
        if answer is TIMED_OUT:
            raise Empty
        if answer is SHUT_DOWN:
            raise ShutDown
        return answer  # type: ignore[no-any-return]  # the item that a putter passed directly

    def qsize(self) -> int:
        """Return the current number of items. Not a checkpoint; thread-safe."""
        return len(self._items)

    def empty(self) -> bool:
        """Return whether the queue holds no item. Not a checkpoint; thread-safe."""
        return not self._items

    def put_nowait(self, item: T) -> None:
        """`put(item, block=False)`. Never a checkpoint; thread-safe."""
        self._put(item, False, None)

    def get_nowait(self) -> T:
        """`get(block=False)`. Never a checkpoint; thread-safe."""
        return self._get(False, None)

    def _waiting_to_join(self) -> int:
        return 0

    def statistics(self) -> snapshots.QueueStatistics:
        """Return the current number of items and waiters. Not a checkpoint; thread-safe."""
        getters, putters, joiners = len(self._getting), len(self._putting), self._waiting_to_join()
        return _queue_statistics(self.qsize(), getters + putters + joiners, getters, putters, joiners)


class SimpleQueue(_Exchange[T]):
    """Like `queue.SimpleQueue`: unbounded, and `put` may be called from a finalizer."""

    def __init__(self) -> None:
        super().__init__()

    @compiled
    def put(self, item: T, block: bool = True, timeout: float | None = None) -> None:
        """Put `item`. Never waits; not a checkpoint; thread-safe. `block` and `timeout` are ignored."""
        self._put(item, False, None)

    @compiled
    def get(self, block: bool = True, timeout: float | None = None) -> T:
        """Take the oldest item; wait for one if `block` is true. A checkpoint in that case; thread-safe.

        Args:
            block: wait while the queue is empty.
            timeout: seconds, or None for no limit; with 0 it never waits.

        Raises:
            Empty: the queue held no item (in time); nothing was taken.
            ValueError: the timeout is negative.
        """
        return self._get(block, timeout)

    def _end_wait(self, waiter: Waiter) -> bool:
        """If `waiter` waits in `get`, let it return None from there; return whether it waited. Thread-safe."""
        return self._getting.withdraw(waiter) and waiter._unpark(None)


class Queue(_Exchange[T]):
    """Like `queue.Queue`: first in, first out.

    `put` passes its item to a thread that waits in `get`, so that waiters are served in order. Such an item does not
    count for `maxsize`, also before that thread runs.

    Args:
        maxsize: number of items it holds before `put` waits; 0 or less for no limit.

    Raises:
        TypeError: `maxsize` is not a number.
    """

    def __init__(self, maxsize: int = 0) -> None:
        super().__init__(_checked_size(maxsize))
        self.unfinished_tasks: int = 0
        self._joining = WaitQueue()

    def _accepted(self) -> None:
        self.unfinished_tasks += 1

    def _waiting_to_join(self) -> int:
        return len(self._joining)

    def full(self) -> bool:
        """Return whether `put` would wait. Not a checkpoint; thread-safe."""
        return 0 < self.maxsize <= len(self._items)

    @compiled
    def put(self, item: T, block: bool = True, timeout: float | None = None) -> None:
        """Put `item`; wait for room if `block` is true. Thread-safe. If it raises, nothing was put.

        A checkpoint if `block` is true, unless the queue is unbounded: then there is always room.

        Args:
            item: anything.
            block: wait while the queue is full.
            timeout: seconds, or None for no limit; with 0 it never waits.

        Raises:
            Full: the queue had no room (in time).
            ShutDown: the queue was shut down.
            ValueError: the timeout is negative.
        """
        self._put(item, block, timeout)

    @compiled
    def get(self, block: bool = True, timeout: float | None = None) -> T:
        """Take the next item; wait for one if `block` is true. A checkpoint in that case; thread-safe.

        If it raises, no item was taken.

        Args:
            block: wait while the queue is empty.
            timeout: seconds, or None for no limit; with 0 it never waits.

        Raises:
            Empty: the queue held no item (in time).
            ShutDown: the queue was shut down and is empty.
            ValueError: the timeout is negative.
        """
        return self._get(block, timeout)

    def task_done(self) -> None:
        """Report that an item taken from the queue has been processed. Not a checkpoint; thread-safe.

        Raises:
            ValueError: called more often than items were put.
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
        check_here()
        waiter = waiter_here()
        with self._changing:
            if not self.unfinished_tasks:
                return
            self._joining.add(waiter)
            if not self.unfinished_tasks:
                # A finalizer finished the last task before this waiter was queued, so unpark it here.
                self._joining.unpark_all()
        self._joining.park(waiter)

    def shutdown(self, immediate: bool = False) -> None:
        """Shut the queue down, as in Python 3.13: `put` raises `ShutDown`, `get` raises it once the queue is empty.

        Not a checkpoint; thread-safe.

        Args:
            immediate: discard the items in the queue, and count them as processed.
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
    """Like `queue.LifoQueue`: last in, first out."""

    def _new_items(self) -> Any:
        return []

    def _take(self) -> T:
        item: T = self._items.pop()
        return item


class PriorityQueue(Queue[T]):
    """Like `queue.PriorityQueue`: lowest item first."""

    def _new_items(self) -> Any:
        return []

    def _store(self, item: T) -> None:
        try:
            heapq.heappush(self._items, item)
        except BaseException:
            # The comparison raised while the item was already somewhere in the heap: remove it, restore the order.
            del self._items[[id(other) for other in self._items].index(id(item))]
            heapq.heapify(self._items)
            raise

    def _take(self) -> T:
        item: T = heapq.heappop(self._items)
        return item
