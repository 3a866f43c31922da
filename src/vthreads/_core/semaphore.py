"""Semaphores. In the core, because a group's `max_concurrency` is one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from .arguments import checked_count, checked_timeout
from .copies import refuse_copy
from .current import check_here
from .engine import TIMED_OUT, Section, compiled
from .on_demand import ModuleOnDemand
from .wait_queue import WaitQueue, waiter_here

if TYPE_CHECKING:
    from . import statistics as snapshots
else:
    snapshots = ModuleOnDemand("vthreads._core.statistics")

__all__ = ["BoundedSemaphore", "Semaphore", "semaphore_statistics"]


def semaphore_statistics(value: int, waiting: int) -> snapshots.SemaphoreStatistics:
    """Return the snapshot; a function, so that its class is loaded at the first call."""
    return snapshots.SemaphoreStatistics(value, waiting)


@compiled
class Semaphore:
    """Like `threading.Semaphore`, but fair: permits go to waiters in the order in which they queued.

    Works between virtual threads of any carrier and plain OS threads.

    Args:
        value: number of permits at the start.

    Raises:
        TypeError: `value` is not a whole number.
        ValueError: `value` is negative.
    """

    def __init__(self, value: int = 1) -> None:
        self._value = self._initial = checked_count(value, "value", 0)
        # Reentrant: the garbage collector may run a finalizer that releases a permit while this thread holds it.
        self._changing = Section()
        self._waiting = WaitQueue()

    def __reduce__(self) -> NoReturn:
        refuse_copy(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} value={self._value} waiting={len(self._waiting)}>"

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """Acquire a permit. A checkpoint if it may wait; thread-safe. If it raises, no permit was acquired.

        Args:
            blocking: wait while there is no permit.
            timeout: seconds to wait, or None for no limit; with 0 it never waits.

        Returns:
            Whether a permit was acquired.

        Raises:
            ValueError: `timeout` was passed together with `blocking=False`, or is NaN.
        """
        if not blocking and timeout is not None:
            raise ValueError("can't specify timeout for non-blocking acquire")
        seconds = checked_timeout(timeout)
        if not blocking or (seconds is not None and seconds <= 0):
            return self._take()
        check_here()
        waiter = waiter_here()
        if not self._take_or_queue(waiter):
            return self._waiting.park(waiter, seconds) is not TIMED_OUT
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

    def _take_or_queue(self, waiter: Any) -> bool:
        """Acquire a permit now, or queue `waiter`, which then owns a permit when it is unparked."""
        with self._changing:
            while not self._take():
                self._waiting.add(waiter)
                # A finalizer may have released a permit before this waiter was queued, so check again.
                if not self._value or not self._waiting.withdraw(waiter):
                    return False
            return True

    def _withdraw(self, waiter: Any) -> bool:
        """Remove `waiter` from the queue; return False if it got a permit meanwhile."""
        return self._waiting.withdraw(waiter)

    def release(self, n: int = 1) -> None:
        """Release `n` permits. Not a checkpoint; thread-safe.

        Raises:
            TypeError: `n` is not a whole number.
            ValueError: `n` is less than 1.
        """
        n = checked_count(n, "n", 1)
        with self._changing:
            for _ in range(n):
                if not self._waiting.unpark_one():
                    self._value += 1

    def statistics(self) -> snapshots.SemaphoreStatistics:
        """Return the number of free permits and waiters. Not a checkpoint; thread-safe."""
        return semaphore_statistics(self._value, len(self._waiting))


class BoundedSemaphore(Semaphore):
    """A semaphore that refuses more releases than acquires."""

    def release(self, n: int = 1) -> None:
        """Release `n` permits. Not a checkpoint; thread-safe.

        Raises:
            ValueError: there would be more permits than at the start; none is released.
        """
        with self._changing:
            if self._value + n > self._initial:
                raise ValueError(f"{self!r} was released more often than acquired (it began with {self._initial})")
            super().release(n)
