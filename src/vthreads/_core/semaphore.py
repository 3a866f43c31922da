"""Counting permits. In the core because a group's `max_concurrency` is one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .current import checkpoint
from .engine import TIMED_OUT, Section, compiled
from .wait_queue import WaitQueue, waiter_here

__all__ = ["BoundedSemaphore", "Semaphore", "SemaphoreStatistics"]


@dataclass(frozen=True)
class SemaphoreStatistics:
    """A look at a semaphore: free permits and threads that wait for one."""

    value: int
    waiting: int


@compiled
class Semaphore:
    """As `threading.Semaphore`, fair: permits go to waiters in the order in which they came.

    Works between virtual threads of any carrier and plain OS threads.

    Args:
        value: permits at the beginning.

    Raises:
        ValueError: `value` is negative.
    """

    def __init__(self, value: int = 1) -> None:
        if value < 0:
            raise ValueError(f"a semaphore starts with 0 permits or more, not {value}")
        self._value = self._initial = value
        # Reentrant, because a finalizer that gives back may run inside.
        self._changing = Section()
        self._waiting = WaitQueue()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} value={self._value} waiting={len(self._waiting)}>"

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """Take a permit. A checkpoint if it may wait; thread-safe. If it raises, no permit was taken.

        Args:
            blocking: wait if there is none.
            timeout: seconds to wait, or None for no limit; 0 not to wait.

        Returns:
            Whether a permit was taken.

        Raises:
            ValueError: a timeout together with `blocking=False`.
        """
        if not blocking and timeout is not None:
            raise ValueError("can't specify timeout for non-blocking acquire")
        if not blocking or (timeout is not None and timeout <= 0):
            return self._take()
        checkpoint()
        waiter = waiter_here()
        if not self.take_or_queue(waiter):
            return self._waiting.park(waiter, timeout) is not TIMED_OUT
        return True

    __enter__ = acquire

    def __exit__(self, *_: object) -> None:
        self.release()

    def _take(self) -> bool:
        with self._changing:
            if self._value > 0:
                self._value -= 1
                return True
            return False

    def take_or_queue(self, waiter: Any) -> bool:
        """Take a permit now, or stand `waiter` in the queue: it is unparked holding one."""
        with self._changing:
            while not self._take():
                self._waiting.add(waiter)
                # A finalizer may have given one back before the waiter stood in the queue.
                if not self._value or not self._waiting.withdraw(waiter):
                    return False
            return True

    def withdraw(self, waiter: Any) -> bool:
        """Take `waiter` out of the queue; false if it was given a permit meanwhile."""
        return self._waiting.withdraw(waiter)

    def release(self, n: int = 1) -> None:
        """Give `n` permits back. Not a checkpoint; thread-safe.

        Raises:
            ValueError: `n` is less than 1.
        """
        if n < 1:
            raise ValueError(f"release() gives back 1 permit or more, not {n}")
        with self._changing:
            for _ in range(n):
                if not self._waiting.unpark_one():
                    self._value += 1

    def statistics(self) -> SemaphoreStatistics:
        """Permits and waiters right now. Not a checkpoint; thread-safe."""
        return SemaphoreStatistics(self._value, len(self._waiting))


class BoundedSemaphore(Semaphore):
    """A semaphore that refuses to be given back more often than it was taken."""

    def release(self, n: int = 1) -> None:
        """Give `n` permits back. Not a checkpoint; thread-safe.

        Raises:
            ValueError: there would be more permits than at the beginning; nothing is given back.
        """
        with self._changing:
            if self._value + n > self._initial:
                raise ValueError(f"{self!r} was released more often than acquired (it began with {self._initial})")
            super().release(n)
