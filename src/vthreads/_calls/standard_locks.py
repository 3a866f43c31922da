"""The locks that replace those of `threading`, and the lock that the standard library's `Condition` waits with.

Programs can compare them with the originals by name, by `repr` and by errors, so these are the same.
"""

from __future__ import annotations

from typing import Any, NoReturn

from .._core.current import current_ident
from .._core.engine import TIMED_OUT, Section, compiled
from .._core.wait_queue import waiter_here
from .._sync.locks import Lock, RLock, acquire_timeout

__all__ = ["ConditionWaiterLock", "StandardLock", "StandardRLock"]


class StandardLock(Lock):
    """Replacement for `threading.Lock`: acquiring it while it is free is not a checkpoint and never raises.

    Logging, returning a connection to its pool, and `Future.set_result` rely on that.
    """

    __slots__ = ()
    _always_checks = False

    # Obsolete names, which the original still has.
    acquire_lock, release_lock, locked_lock = Lock.acquire, Lock.release, Lock.locked

    def __init_subclass__(cls) -> NoReturn:
        raise TypeError("type '_thread.lock' is not an acceptable base type")

    def __repr__(self) -> str:
        return f"<{'locked' if self.locked() else 'unlocked'} _thread.lock object at {id(self):#x}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("cannot pickle '_thread.lock' object")


class StandardRLock(RLock):
    """Replacement for `threading.RLock`: acquiring it while free or owned is not a checkpoint and never raises."""

    __slots__ = ()
    _always_checks = False

    def __init__(self, *_: Any, **__: Any) -> None:
        # The original accepts any arguments and ignores them.
        super().__init__()

    def __repr__(self) -> str:
        owner, count = self._held()
        state = "locked" if count else "unlocked"
        return f"<{state} _thread.RLock object owner={owner} count={count} at {id(self):#x}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("cannot pickle '_thread.RLock' object")


# Programs find the classes under these names and show them in messages.
StandardLock.__module__, StandardLock.__qualname__, StandardLock.__name__ = "_thread", "lock", "lock"
StandardRLock.__module__, StandardRLock.__qualname__, StandardRLock.__name__ = "_thread", "RLock", "RLock"


@compiled
class ConditionWaiterLock(Lock):
    """The lock that the standard library's `Condition.wait` acquires twice: the second acquire waits for the notify.

    `Condition.notify` calls `release`, and if that raises RuntimeError, it notifies the next waiter instead. So once
    the second acquire has been given up (cancelled, interrupted or timed out), `release` raises RuntimeError at once,
    even before the waiter runs again and leaves the condition. No notify is lost on a waiter that no longer waits.
    """

    __slots__ = ("_awaited", "_changing", "_taker")
    _always_checks = False

    def __init__(self) -> None:
        super().__init__()
        self._changing = Section()
        self._taker: int | None = None
        # Whether the second acquire has begun. From then on `release` means "notify" and must find a waiter.
        self._awaited = False

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Acquire the lock like `Lock.acquire`, or wait for the notify if this thread holds it already."""
        me = current_ident()
        if self._taker == me and self.locked():
            # Only `Condition.wait` waits for a lock that its own thread holds.
            seconds = acquire_timeout(blocking, timeout)
            return self._wait_for_notify(seconds if blocking else 0)
        taken = super().acquire(blocking, timeout)
        if taken:
            self._taker, self._awaited = me, False
        return taken

    def _wait_for_notify(self, timeout: float | None) -> bool:
        waiter = waiter_here()
        with self._changing:
            if self._take():
                # The notify came after the condition's lock was released and before this thread was queued.
                return True
            self._awaited = True
            if timeout == 0:
                return False
            self._waiting.add(waiter)
        # No checkpoint here: it may yield to a notify, and take an interrupt then, which could not be raised without
        # losing the notify. The park takes an interrupt only if it can withdraw the waiter.
        return self._waiting.park(waiter, timeout) is not TIMED_OUT

    __enter__ = acquire

    def release(self) -> None:
        """Release the lock like `Lock.release`, or notify its waiter.

        Raises:
            RuntimeError: the lock is not held, or its waiter has given up.
        """
        with self._changing:
            if not self._awaited or self._taker == current_ident():
                self._awaited, self._taker = False, None
                super().release()
            elif not self._waiting.unpark_one():
                raise RuntimeError("release of a lock whose waiter was cancelled or timed out")
