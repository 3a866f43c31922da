"""Conditions: shaped as in `threading`, fair, cancellable, for virtual threads of any carrier and plain OS threads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ._core.current import checkpoint
from ._core.delivery import deferred_delivery
from ._core.engine import TIMED_OUT
from ._core.runtime import now
from ._core.wait_queue import WaitQueue, waiter_here
from .locks import RLock

__all__ = ["Condition", "ConditionStatistics"]


@dataclass(frozen=True)
class ConditionStatistics:
    """A look at a condition: how many wait for a notify."""

    waiting: int


class Condition:
    """As `threading.Condition`; those notified go on in the order in which they waited.

    Args:
        lock: a lock of any kind with `acquire` and `release`; None: an `RLock` of its own.
    """

    def __init__(self, lock: Any = None) -> None:
        self._lock = RLock() if lock is None else lock
        self._waiting = WaitQueue()
        self.acquire: Callable[..., bool] = self._lock.acquire
        self.release: Callable[[], None] = self._lock.release

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
        """Give the lock up, wait to be notified, and take it again. A checkpoint, unless the timeout is 0.

        Taking it again is never cancelled, so the lock is owned however this ends. Once notified it succeeds; a waiter
        that is cancelled before has left the queue at once, and no notify is lost on it.

        Args:
            timeout: seconds, or None for no limit; with 0 the lock is given up and taken again at once.

        Returns:
            False if the timeout came first.

        Raises:
            RuntimeError: the lock is not owned.
        """
        if not self._is_owned():
            raise RuntimeError("cannot wait on un-acquired lock")
        if timeout is not None and timeout <= 0:
            self._take_again(self._give_up())
            return False
        checkpoint()
        waiter = waiter_here()
        self._waiting.add(waiter)
        saved = self._give_up()
        try:
            return self._waiting.park(waiter, timeout) is not TIMED_OUT
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
        """`wait` until `predicate()` is true; its last answer. A checkpoint.

        Args:
            predicate: called with the lock held.
            timeout: seconds in all, or None for no limit.
        """
        deadline = None if timeout is None else now() + timeout
        answer = predicate()
        while not answer:
            left = None if deadline is None else deadline - now()
            if left is not None and left <= 0:
                break
            self.wait(left)
            answer = predicate()
        return answer

    def notify(self, n: int = 1) -> None:
        """Unpark up to `n` waiters, the longest waiting first. Not a checkpoint.

        Raises:
            RuntimeError: the lock is not owned.
        """
        if not self._is_owned():
            raise RuntimeError("cannot notify on un-acquired lock")
        for _ in range(n):
            if not self._waiting.unpark_one():
                return

    def notify_all(self) -> None:
        """Unpark all who wait. Not a checkpoint. See `notify`."""
        self.notify(len(self._waiting))

    def statistics(self) -> ConditionStatistics:
        """Waiters right now. Not a checkpoint; thread-safe."""
        return ConditionStatistics(len(self._waiting))
