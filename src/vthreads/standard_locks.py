"""The locks of this package in the place of those of `threading`, and what its `Condition` needs of one.

They answer as the originals do where a program could tell: by name, by `repr`, by what they refuse.
"""

from __future__ import annotations

from typing import Any, NoReturn

from ._core.current import checkpoint, current_ident
from ._core.engine import TIMED_OUT
from ._core.originals import RLock as Section
from ._core.wait_queue import waiter_here
from .locks import Lock, RLock, checked_timeout

__all__ = ["ConditionWaiterLock", "StandardLock", "StandardRLock"]


class StandardLock(Lock):
    """What `threading.Lock` becomes: taking it while it is free is no checkpoint and never raises.

    Logging, pools' check-in and `Future.set_result` are held together by that.
    """

    __slots__ = ()
    _always_checks = False

    def __init_subclass__(cls) -> NoReturn:
        raise TypeError("type '_thread.lock' is not an acceptable base type")

    def __repr__(self) -> str:
        return f"<{'locked' if self.locked() else 'unlocked'} _thread.lock object at {id(self):#x}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("cannot pickle '_thread.lock' object")


class StandardRLock(RLock):
    """What `threading.RLock` becomes: taking it while it is free or owned is no checkpoint and never raises."""

    __slots__ = ()
    _always_checks = False

    def __init__(self, *_: Any, **__: Any) -> None:
        # The original takes any arguments, and does nothing with them.
        super().__init__()

    def __repr__(self) -> str:
        owner, count = self._held()
        state = "locked" if count else "unlocked"
        return f"<{state} _thread.RLock object owner={owner} count={count} at {id(self):#x}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("cannot pickle '_thread.RLock' object")


# Where programs find them, and what they read in messages.
StandardLock.__module__, StandardLock.__qualname__, StandardLock.__name__ = "_thread", "lock", "lock"
StandardRLock.__module__, StandardRLock.__qualname__, StandardRLock.__name__ = "_thread", "RLock", "RLock"


class ConditionWaiterLock(Lock):
    """The lock by which the standard library's `Condition.wait` waits: it acquires it, and then once more.

    `Condition.notify` releases it, and takes a RuntimeError for "this one was not waiting, take the next". So once the
    second acquire has been given up (cancelled, interrupted or timed out), `release` says just that, long before the
    waiter runs and leaves the condition: no notify is lost.
    """

    __slots__ = ("_awaited", "_changing", "_holder")
    _always_checks = False

    def __init__(self) -> None:
        super().__init__()
        self._changing = Section()
        self._holder: int | None = None
        # The second acquire has been made, so who stands in the queue is to be notified.
        self._awaited = False

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """As `Lock.acquire`."""
        me = current_ident()
        if self._holder == me and self.locked():
            # In ordinary use a lock is not waited for by the thread that holds it.
            seconds = checked_timeout(blocking, timeout)
            return self._wait_for_notify(seconds if blocking else 0)
        taken = super().acquire(blocking, timeout)
        if taken:
            self._holder, self._awaited = me, False
        return taken

    def _wait_for_notify(self, timeout: float | None) -> bool:
        waiter = waiter_here()
        with self._changing:
            if self._take():
                # Notified between giving the condition's lock up and here.
                return True
            self._awaited = True
            if timeout == 0:
                return False
            self._waiting.add(waiter)
        try:
            checkpoint()
        except BaseException:
            if self._waiting.withdraw(waiter):
                raise
            waiter.park_through()
            return True
        return self._waiting.park(waiter, timeout) is not TIMED_OUT

    __enter__ = acquire

    def release(self) -> None:
        """As `Lock.release`.

        Raises:
            RuntimeError: it is not taken, or the one that waited for it has given up.
        """
        with self._changing:
            if not self._awaited or self._holder == current_ident():
                self._awaited, self._holder = False, None
                super().release()
            elif not self._waiting.unpark_one():
                raise RuntimeError("release of a lock whose waiter has given up")
