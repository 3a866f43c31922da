"""Fair, cancellable conditions with the interface of `threading.Condition`, for virtual and plain OS threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from .._core.arguments import checked_timeout
from .._core.copies import refuse_copy
from .._core.current import check_here
from .._core.delivery import deferred_delivery
from .._core.engine import TIMED_OUT
from .._core.on_demand import ModuleOnDemand
from .._core.runtime import now
from .._core.wait_queue import WaitQueue, waiter_here
from .locks import RLock

if TYPE_CHECKING:
    from . import statistics as snapshots
else:
    snapshots = ModuleOnDemand("vthreads._sync.statistics")

__all__ = ["Condition"]


class Condition:
    """Like `threading.Condition`, but first in, first out: `notify` unparks the thread that has waited longest.

    Args:
        lock: any lock with `acquire` and `release`; None creates an `RLock`.
    """

    def __init__(self, lock: Any = None) -> None:
        self._lock = RLock() if lock is None else lock
        self._waiting = WaitQueue()
        self.acquire: Callable[..., bool] = self._lock.acquire
        self.release: Callable[[], None] = self._lock.release

    def __reduce__(self) -> NoReturn:
        refuse_copy(self)

    def __repr__(self) -> str:
        return f"<Condition {self._lock!r} waiting={len(self._waiting)}>"

    def __enter__(self) -> bool:
        return bool(self._lock.__enter__())

    def __exit__(self, *error: Any) -> None:
        self._lock.__exit__(*error)

    def _is_owned(self) -> bool:
        if hasattr(self._lock, "_is_owned"):
            return bool(self._lock._is_owned())
        if self._lock.acquire(False):
            self._lock.release()
            return False
        return True

    def wait(self, timeout: float | None = None) -> bool:
        """Release the lock, wait for a notify, and acquire the lock again. A checkpoint, unless the timeout is 0.

        Acquiring it again ignores cancellation, so the caller owns the lock however the wait ends. A waiter that was
        notified returns True even if it is cancelled at the same time. A waiter that is cancelled first leaves the
        queue at once, so a later `notify` goes to another waiter and is not lost.

        Args:
            timeout: seconds, or None for no limit; with 0 the lock is released and acquired again at once.

        Returns:
            False if the timeout expired before a notify.

        Raises:
            RuntimeError: the lock is not owned.
        """
        if not self._is_owned():
            raise RuntimeError("cannot wait on un-acquired lock")
        seconds = checked_timeout(timeout)
        if seconds is not None and seconds <= 0:
            self._take_again(self._give_up())
            return False
        check_here()
        waiter = waiter_here()
        self._waiting.add(waiter)
        saved = self._give_up()
        try:
            return self._waiting.park(waiter, seconds) is not TIMED_OUT
        finally:
            self._take_again(saved)

    def _give_up(self) -> Any:
        if hasattr(self._lock, "_release_save"):
            return self._lock._release_save()
        self._lock.release()
        return None

    def _take_again(self, saved: Any) -> None:
        with deferred_delivery():
            if hasattr(self._lock, "_acquire_restore"):
                self._lock._acquire_restore(saved)
            else:
                self._lock.acquire()

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        """Call `wait` until `predicate()` is true; return its last result. A checkpoint if it waits.

        Args:
            predicate: called with the lock held.
            timeout: seconds for all waits together, or None for no limit.
        """
        seconds = checked_timeout(timeout)
        deadline = None if seconds is None else now() + seconds
        answer = predicate()
        while not answer:
            left = None if deadline is None else deadline - now()
            if left is not None and left <= 0:
                break
            self.wait(left)
            answer = predicate()
        return answer

    def notify(self, n: int = 1) -> None:
        """Unpark up to `n` waiters, longest wait first. Not a checkpoint.

        Raises:
            RuntimeError: the lock is not owned.
        """
        if not self._is_owned():
            raise RuntimeError("cannot notify on un-acquired lock")
        for _ in range(n):
            if not self._waiting.unpark_one():
                return

    def notify_all(self) -> None:
        """Unpark all waiters. Not a checkpoint. See `notify`."""
        self.notify(len(self._waiting))

    def statistics(self) -> snapshots.ConditionStatistics:
        """Return the current number of waiters. Not a checkpoint; thread-safe."""
        return snapshots.ConditionStatistics(len(self._waiting))
