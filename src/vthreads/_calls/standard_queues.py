"""Adapters for `SimpleQueue` objects that were created before patching, so that virtual threads can wait on them.

The items stay in the original queue, where OS threads can wait for them in C. A virtual thread that finds the queue
empty waits in a queue of this module, which the adapter's `put` unparks. Code that kept a reference to the original
queue puts there and unparks nothing; so while such references may exist, a waiter also checks after each pause.
"""

from __future__ import annotations

import _queue
from collections.abc import Callable
from sys import getrefcount
from typing import Any
from weakref import getweakrefcount, ref

from .._core.arguments import checked_timeout
from .._core.current import running
from .._core.thread import VirtualThread
from .._core.wait_queue import WaitQueue, deadline_after
from .._sync.queues import SimpleQueue
from ..errors import Empty

__all__ = ["AdoptedSimpleQueue", "OriginalSimpleQueue", "SimpleQueueOver"]

OriginalSimpleQueue: Any = _queue.SimpleQueue

# Seconds between two checks by a waiter.
LONGEST_PAUSE = 0.05

Take = Callable[..., Any]


def _get(take: Take, waiting: WaitQueue, block: bool, timeout: float | None, longest: float | None) -> Any:
    """`SimpleQueue.get` for an original queue whose `get` method is `take`."""
    thread = running()
    if thread is None or not block:
        return take(block, timeout)
    seconds = checked_timeout(timeout)
    if seconds is not None and seconds < 0:
        raise ValueError("'timeout' must be a non-negative number")
    if seconds == 0:
        return take(False)
    thread._check()
    now = thread._scheduler.clock.now
    deadline = deadline_after(now(), seconds)
    while True:
        try:
            return take(False)
        except Empty:
            left = deadline - now()
            if left <= 0:
                raise
        if _stand_in_line(take, waiting, thread, left if longest is None else min(left, longest)) is None:
            return None


def _stand_in_line(take: Take, waiting: WaitQueue, thread: VirtualThread, seconds: float) -> Any:
    """Queue and park until there may be an item; return None if `_end_wait` has ended the wait."""
    waiting.add(thread)
    if take.__self__.empty():  # type: ignore[attr-defined]  # a bound method
        return waiting.park(thread, seconds)
    if not waiting.withdraw(thread):
        # An item was put, and this thread unparked, between the check and the queueing.
        return thread._park_through()
    return True


class SimpleQueueOver(SimpleQueue[Any]):
    """Replaces a queue object that was created before patching."""

    def __init__(self, original: Any) -> None:
        super().__init__()
        self._original = original

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Like `SimpleQueue.put`."""
        self._original.put(item)
        self._getting.unpark_one()

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Like `SimpleQueue.get`."""
        # Two references are expected: the attribute, and the argument of `getrefcount`. A third is in foreign code. It
        # can also get one from a weak reference, at any time.
        is_shared = getrefcount(self._original) > 2 or getweakrefcount(self._original)
        return _get(self._original.get, self._getting, block, timeout, LONGEST_PAUSE if is_shared else None)

    def put_nowait(self, item: Any) -> None:
        """`put(item)`."""
        self.put(item)

    def get_nowait(self) -> Any:
        """`get(block=False)`."""
        return self._original.get(False)

    def qsize(self) -> int:
        """Return the current number of items."""
        size: int = self._original.qsize()
        return size

    def empty(self) -> bool:
        """Return whether the queue holds no item."""
        return self.qsize() == 0


class AdoptedSimpleQueue(OriginalSimpleQueue):  # type: ignore[misc]  # a C class
    """Replaces `SimpleQueue` as the base of a class that was created before patching."""

    __slots__ = ()

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Like `SimpleQueue.put`."""
        OriginalSimpleQueue.put(self, item)
        _waiting_at(self).unpark_one()

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Like `SimpleQueue.get`."""
        return _get(super().get, _waiting_at(self), block, timeout, None)

    def put_nowait(self, item: Any) -> None:
        """`put(item)`."""
        AdoptedSimpleQueue.put(self, item)


# Waiters by id of the queue, which may be unhashable, with the weak reference that removes the entry at its end.
_waiting: dict[int, tuple[WaitQueue, ref[Any]]] = {}


def _waiting_at(queue: Any) -> WaitQueue:
    key = id(queue)
    if key not in _waiting:
        _waiting.setdefault(key, (WaitQueue(), ref(queue, lambda _: _waiting.pop(key, None))))
    return _waiting[key][0]
