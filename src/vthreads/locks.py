"""Locks: shaped as in `threading`, fair, cancellable, for virtual threads of any carrier and plain OS threads.

A lock that is waited for is handed over to the first in the queue, so nobody overtakes; a wait that ended with an
exception has changed nothing.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from types import TracebackType

from ._core.current import checkpoint, current_ident
from ._core.delivery import deferred_delivery
from ._core.engine import TIMED_OUT, compiled
from ._core.originals import allocate_lock
from ._core.wait_queue import Waiter, WaitQueue, waiter_here

__all__ = ["Lock", "LockStatistics", "RLock", "checked_timeout"]


@dataclass(frozen=True)
class LockStatistics:
    """A look at a lock: whether it is held, by whom if that is known (a thread's ident), and how many wait."""

    locked: bool
    owner: int | None
    waiting: int


def checked_timeout(blocking: bool, timeout: float) -> float | None:
    """Turn the arguments of `acquire` into seconds or None; say what is wrong with them as `threading` does."""
    if not blocking and timeout != -1:
        raise ValueError("can't specify a timeout for a non-blocking call")
    if not timeout >= 0 and timeout != -1:
        raise ValueError("timeout value must be a non-negative number")
    if timeout > threading.TIMEOUT_MAX:
        raise OverflowError("timeout value is too large")
    return None if timeout == -1 else timeout


@compiled
class Lock:
    """As `threading.Lock`, fair. Any thread may release it.

    Its state is one lock of the operating system, so that neither an OS thread nor a finalizer nor a signal handler can
    come between two halves of a change. While somebody waits it stays taken: `release` hands it on.
    """

    __slots__ = ("__weakref__", "_taken", "_waiting")

    # Whether taking it while it is free is a checkpoint.
    _always_checks = True

    def __init__(self) -> None:
        self._taken = allocate_lock()
        self._waiting = WaitQueue()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {'locked' if self.locked() else 'unlocked'} waiting={len(self._waiting)}>"

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock. A checkpoint if it may wait; thread-safe. If it raises, the lock was not taken.

        Args:
            blocking: wait if it is taken.
            timeout: seconds to wait; -1 for no limit, 0 not to wait.

        Returns:
            Whether it was taken.

        Raises:
            ValueError: the timeout is negative, or given together with `blocking=False`.
        """
        if blocking and timeout == -1:
            if self._always_checks:
                checkpoint()
            return self._take() or self._wait(None)
        seconds = checked_timeout(blocking, timeout)
        waits = blocking and seconds != 0
        if waits and self._always_checks:
            checkpoint()
        return self._take() or (waits and self._wait(seconds))

    def _take(self) -> bool:
        """Take it if it is free."""
        return self._taken.acquire(False)

    def _wait(self, timeout: float | None) -> bool:
        if not self._always_checks:
            checkpoint()
        waiter = waiter_here()
        self._waiting.add(waiter)
        if self._take():
            # Released between the try and the queueing. Only who holds the lock takes waiters out, so this one is in.
            self._waiting.withdraw(waiter)
            return True
        return self._waiting.park(waiter, timeout) is not TIMED_OUT

    def release(self) -> None:
        """Give the lock to the first who waits, or free it. Not a checkpoint; thread-safe; by any thread.

        Raises:
            RuntimeError: it is not taken.
        """
        if not self._taken.locked():
            raise RuntimeError("release unlocked lock")
        while not self._waiting.unpark_one():
            self._taken.release()
            # Somebody may have queued after the look and before the release.
            if not self._waiting or not self._take():
                return

    def locked(self) -> bool:
        """Whether it is taken. Not a checkpoint; thread-safe."""
        return self._taken.locked()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def statistics(self) -> LockStatistics:
        """State and waiters right now. Not a checkpoint; thread-safe."""
        return LockStatistics(self.locked(), None, len(self._waiting))

    def _at_fork_reinit(self) -> None:
        """Start afresh, in the child of a fork: whoever held it may not be here."""
        self._taken = allocate_lock()
        self._waiting.forget_all()


class _Hold:
    """One time that an RLock is owned: by whom, and how often it was acquired."""

    __slots__ = ("count", "owner")

    def __init__(self, owner: int | None, count: int = 1) -> None:
        self.owner = owner
        self.count = count


class _HoldWanted:
    """Somebody who waits for an RLock, with the hold that becomes the current one when the lock is handed over."""

    __slots__ = ("_hold", "_waiter")

    def __init__(self, waiter: Waiter, hold: _Hold) -> None:
        self._waiter = waiter
        self._hold = hold

    def unpark(self, current: dict[str, _Hold]) -> bool:
        current["hold"] = self._hold
        return self._waiter.unpark(True)


@compiled
class RLock:
    """As `threading.RLock`, fair: its owner, virtual or OS thread, may take it again.

    Lock, owner and count change in one step, a dict's `setdefault`, so that a finalizer or signal handler that takes
    the lock in the midst of an `acquire` or `release` of its own thread finds it either free or owned by this thread.
    """

    __slots__ = ("__weakref__", "_current", "_waiting")

    # Whether taking it while it is free or owned is a checkpoint.
    _always_checks = True

    def __init__(self) -> None:
        # Under "hold", the current hold; empty while the lock is free.
        self._current: dict[str, _Hold] = {}
        self._waiting = WaitQueue()

    def __repr__(self) -> str:
        hold = self._current.get("hold")
        state = "unlocked" if hold is None else f"locked owner={hold.owner} count={hold.count}"
        return f"<{type(self).__name__} {state} waiting={len(self._waiting)}>"

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock, or take it once more. A checkpoint if it may wait; thread-safe. See `Lock.acquire`."""
        seconds = None if blocking and timeout == -1 else checked_timeout(blocking, timeout)
        waits = blocking and seconds != 0
        if waits and self._always_checks:
            checkpoint()
        me = current_ident()
        hold = self._current.get("hold")
        if hold is not None and hold.owner == me:
            hold.count += 1
            return True
        hold = _Hold(me)
        return self._current.setdefault("hold", hold) is hold or (waits and self._wait(hold, seconds))

    def _wait(self, hold: _Hold, timeout: float | None) -> bool:
        if not self._always_checks:
            checkpoint()
        waiter = waiter_here()
        wanted = _HoldWanted(waiter, hold)
        self._waiting.add(wanted)
        if self._current.setdefault("hold", hold) is hold:
            # Free since the try, or handed over by a finalizer. If the latter, its wake-up is there.
            return self._waiting.withdraw(wanted) or bool(waiter.park_through())
        return waiter.park(lambda: self._waiting.withdraw(wanted), timeout) is not TIMED_OUT

    def release(self) -> None:
        """Undo one `acquire`. Not a checkpoint.

        Raises:
            RuntimeError: the caller does not own it.
        """
        hold = self._current.get("hold")
        if hold is None or hold.owner != current_ident():
            raise RuntimeError("cannot release un-acquired lock")
        if hold.count > 1:
            hold.count -= 1
        else:
            self._hand_on(hold)

    def _hand_on(self, hold: _Hold) -> None:
        while not self._waiting.unpark_one(self._current):
            del self._current["hold"]
            # Somebody may have queued after the look and before this.
            if not self._waiting or self._current.setdefault("hold", hold) is not hold:
                return

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def locked(self) -> bool:
        """Whether anybody owns it. Not a checkpoint; thread-safe."""
        return bool(self._current)

    def statistics(self) -> LockStatistics:
        """State, owner and waiters right now. Not a checkpoint; thread-safe."""
        hold = self._current.get("hold")
        return LockStatistics(hold is not None, None if hold is None else hold.owner, len(self._waiting))

    def _held(self) -> tuple[int | None, int]:
        """Owner and count; zeros while it is free."""
        hold = self._current.get("hold")
        return (0, 0) if hold is None else (hold.owner, hold.count)

    # What the standard library's Condition and its like ask of a lock.

    def _is_owned(self) -> bool:
        return self._recursion_count() > 0

    def _recursion_count(self) -> int:
        hold = self._current.get("hold")
        return hold.count if hold is not None and hold.owner == current_ident() else 0

    def _release_save(self) -> tuple[int, int | None]:
        hold = self._current.get("hold")
        if hold is None:
            raise RuntimeError("cannot release un-acquired lock")
        self._hand_on(hold)
        return hold.count, hold.owner

    def _acquire_restore(self, state: tuple[int, int | None]) -> None:
        count, owner = state
        hold = _Hold(owner, count)
        with deferred_delivery():
            if self._current.setdefault("hold", hold) is not hold:
                self._wait(hold, None)

    def _at_fork_reinit(self) -> None:
        self._current = {}
        self._waiting.forget_all()
