"""Fair, cancellable locks with the interface of `threading`, for virtual threads of any carrier and plain OS threads.

A release hands the lock to the first waiter instead of freeing it, so no thread overtakes the queue. An acquire that
raises has not changed the lock.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn
from weakref import ref

from .._core.arguments import checked_timeout
from .._core.copies import refuse_copy
from .._core.current import carriers, check_here, current_ident, running
from .._core.delivery import deferred_delivery
from .._core.engine import TIMED_OUT, compiled, contended, supply
from .._core.on_demand import ModuleOnDemand
from .._core.originals import allocate_lock, get_ident
from .._core.repeated import repeated_in
from .._core.wait_queue import Waiter, WaitQueue, outer_wait, waiter_here

if TYPE_CHECKING:
    from . import statistics as snapshots
else:
    snapshots = ModuleOnDemand("vthreads._sync.statistics")

__all__ = ["Lock", "RLock", "acquire_timeout", "list_contended"]


def _lock_statistics(locked: bool, owner: int | None, waiting: int) -> snapshots.LockStatistics:
    """Return the snapshot; a function, so that its class is loaded at the first call."""
    return snapshots.LockStatistics(locked, owner, waiting)


@repeated_in("_sync/compiled/locks.pxi")
def acquire_timeout(blocking: bool, timeout: float) -> float | None:
    """Convert the arguments of `acquire` to seconds or None; raise the errors of `threading` for wrong ones."""
    seconds = checked_timeout(timeout)
    if seconds is None:
        raise TypeError("timeout=None: a lock takes seconds, or -1 for no limit")
    if seconds == -1:
        return None
    if not blocking:
        raise ValueError("can't specify a timeout for a non-blocking call")
    if seconds < 0:
        raise ValueError("timeout value must be a non-negative number")
    if seconds > threading.TIMEOUT_MAX:
        raise OverflowError("timeout value is too large")
    return seconds


@repeated_in("_sync/compiled/locks.pxi")
def refuse_as_original(blocking: Any, timeout: Any) -> None:
    """Let a lock of the standard library refuse uncommon values: which it accepts depends on the version of Python."""
    is_number = type(timeout) is int or type(timeout) is float
    if type(blocking) is not bool or not is_number or -1 != timeout < 0 or timeout > threading.TIMEOUT_MAX:
        # No thread holds the new lock, so this never waits.
        allocate_lock().acquire(blocking, timeout)


@repeated_in("_sync/compiled/locks.pxi")
def list_contended(lock: Any) -> None:
    """Record that a wait for `lock` without a deadline begins: the deadlock check follows the owners of such locks.

    Call it when the waiter is queued.
    """
    if not lock._is_listed:
        lock._is_listed = True
        contended.append(ref(lock))
        if running() is None:
            check_contended()


def check_contended() -> None:
    """Make all carriers read the list `contended`: they may be idle, and a plain OS thread has added a lock to it."""
    for scheduler in list(carriers.values()):
        with suppress(OSError):
            # The poller is closed, so the carrier has ended.
            scheduler.post(_nothing)


def _nothing() -> None:
    """Do nothing: posting this interrupts the poll of an idle carrier, which then reads the list again."""


supply(__name__, statistics=_lock_statistics, deferred=deferred_delivery, check=check_contended, plain=allocate_lock)


@repeated_in("_sync/compiled/locks.pxi")
def holder_here() -> int:
    """Return a number for the running virtual thread, or for the OS thread if there is none; see `Lock._holder`."""
    thread = running()
    return get_ident() if thread is None else id(thread)


@compiled
class Lock:
    """Like `threading.Lock`, but fair. Any thread may release it.

    Its state is a single lock of the operating system. So each change is one atomic step, and no OS thread, finalizer
    or signal handler sees a half-made change. The inner lock stays taken while threads wait: `release` hands it over.
    """

    __slots__ = ("__weakref__", "_holder", "_in_block", "_is_listed", "_taken", "_waiting")

    # Whether `acquire` is a checkpoint even if the lock is free.
    _always_checks = True

    def __init__(self) -> None:
        self._taken = allocate_lock()
        self._waiting = WaitQueue()
        # Whether the lock is already in the list `contended`.
        self._is_listed = False
        # The thread that acquired the lock: the `id` of a virtual thread, or the ident of an OS thread; 0 while free.
        # Only the search for circles of locks reads it. A number is set in less time than a reference.
        self._holder = 0
        # Whether a `with` statement has acquired it: then the holder itself will release it. Read only by that search.
        self._in_block = False

    def __reduce__(self) -> NoReturn:
        refuse_copy(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {'locked' if self.locked() else 'unlocked'} waiting={len(self._waiting)}>"

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Acquire the lock. A checkpoint if it may wait; thread-safe. If it raises, the lock was not acquired.

        Args:
            blocking: wait while another thread holds the lock.
            timeout: seconds to wait; -1 for no limit, 0 to return at once.

        Returns:
            Whether the lock was acquired.

        Raises:
            ValueError: the timeout is negative, or was given together with `blocking=False`.
        """
        if blocking is True and timeout == -1:
            thread = running()
            if self._always_checks and thread is not None:
                thread._check()
            if self._taken.acquire(False):
                self._holder = get_ident() if thread is None else id(thread)
                return True
            return self._wait(None)
        if not self._always_checks:
            refuse_as_original(blocking, timeout)
        seconds = acquire_timeout(blocking, timeout)
        waits = blocking and seconds != 0
        if waits and self._always_checks:
            check_here()
        return self._take() or (waits and self._wait(seconds))

    def _take(self) -> bool:
        """Acquire the lock if it is free."""
        if not self._taken.acquire(False):
            return False
        self._holder = holder_here()
        return True

    def _wait(self, timeout: float | None) -> bool:
        if not self._always_checks:
            check_here()
        waiter = waiter_here()
        outer = outer_wait(waiter)
        if outer is not None and self._waiting.withdraw(outer):
            return self._wait_before(outer, timeout)
        self._waiting.add(waiter)
        if self._take():
            # The owner released it after the first attempt and before this waiter was queued. Only the thread that
            # holds the lock removes waiters, and that is now this thread, so the waiter is still in the queue.
            self._waiting.withdraw(waiter)
            return True
        if timeout is None:
            list_contended(self)
        if self._waiting.park(waiter, timeout) is TIMED_OUT:
            return False
        self._holder = holder_here()
        return True

    def _wait_before(self, outer: Waiter, timeout: float | None) -> bool:
        """Wait inside the wait `outer` of the same thread: a finalizer or signal handler needs the lock first.

        The outer wait continues only after this one returns. So remove it from the queue, and queue it again behind.
        """
        try:
            return self._wait(timeout)
        finally:
            self._waiting.add(outer)
            if self._take():
                # The lock is free, and the outer wait is queued again: hand the lock to the first waiter.
                self.release()

    def release(self) -> None:
        """Hand the lock to the first waiter, or free it. Not a checkpoint; thread-safe; any thread may call it.

        Raises:
            RuntimeError: the lock is not held.
        """
        if not self._taken.locked():
            raise RuntimeError("release unlocked lock")
        self._holder, self._in_block = 0, False
        while not self._waiting.unpark_one():
            self._taken.release()
            # A thread that queued between `unpark_one` and this release found the lock taken. Acquire it again and
            # hand it over; if that fails, the new owner will.
            if not self._waiting or not self._taken.acquire(False):
                return

    def locked(self) -> bool:
        """Return whether the lock is held. Not a checkpoint; thread-safe."""
        return self._taken.locked()

    def __enter__(self) -> bool:
        taken = self.acquire()
        self._in_block = taken
        return taken

    # The locks of the standard library accept the call without arguments.
    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self.release()

    def statistics(self) -> snapshots.LockStatistics:
        """Return the current state and number of waiters. Not a checkpoint; thread-safe."""
        return _lock_statistics(self.locked(), None, len(self._waiting))

    def _at_fork_reinit(self) -> None:
        """Reset to free, in the child of a fork: the thread that held it may not exist here."""
        self._taken, self._holder, self._in_block = allocate_lock(), 0, False
        self._waiting.forget_all()


class _Hold:
    """One period of ownership of an RLock: the owner, and its number of acquires."""

    __slots__ = ("count", "owner")

    def __init__(self, owner: int | None, count: int = 1) -> None:
        self.owner = owner
        self.count = count


@repeated_in("_sync/compiled/locks.pxi")
class _HoldWanted:
    """A waiter for an RLock, with the hold that becomes the current one when the lock is handed over."""

    __slots__ = ("_hold", "_waiter", "within")

    def __init__(self, waiter: Waiter, hold: _Hold) -> None:
        self._waiter = waiter
        self._hold = hold
        # Waits of the same thread for the same lock that began inside this wait, in finalizers or signal handlers.
        self.within = WaitQueue()

    def _unpark(self, current: dict[str, _Hold]) -> bool:
        current["hold"] = self._hold
        self.within.unpark_all()
        return self._waiter._unpark(True)


@compiled
class RLock:
    """Like `threading.RLock`, but fair: its owner, a virtual or OS thread, may acquire it again.

    Lock, owner and count change in one atomic step, a dict's `setdefault`. So a finalizer or signal handler that
    acquires the lock while its own thread is inside `acquire` or `release` finds it either free or owned by the thread.
    """

    __slots__ = ("__weakref__", "_current", "_is_listed", "_waiting", "_wanted")

    # Whether `acquire` is a checkpoint even if the lock is free or already owned by the caller.
    _always_checks = True

    def __init__(self) -> None:
        # The key "hold" maps to the current hold; the dict is empty while the lock is free.
        self._current: dict[str, _Hold] = {}
        # The outermost wait of each owner.
        self._wanted: dict[int | None, _HoldWanted] = {}
        self._waiting = WaitQueue()
        self._is_listed = False

    def __reduce__(self) -> NoReturn:
        refuse_copy(self)

    def __repr__(self) -> str:
        hold = self._current.get("hold")
        state = "unlocked" if hold is None else f"locked owner={hold.owner} count={hold.count}"
        return f"<{type(self).__name__} {state} waiting={len(self._waiting)}>"

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Acquire the lock, once more if the caller owns it. A checkpoint if it may wait. See `Lock.acquire`."""
        if not self._always_checks:
            refuse_as_original(blocking, timeout)
        seconds = None if blocking and timeout == -1 else acquire_timeout(blocking, timeout)
        waits = blocking and seconds != 0
        if waits and self._always_checks:
            check_here()
        me = current_ident()
        hold = self._current.get("hold")
        if hold is not None and hold.owner == me:
            hold.count += 1
            return True
        hold = _Hold(me)
        return self._current.setdefault("hold", hold) is hold or (waits and self._wait(hold, seconds))

    def _wait(self, hold: _Hold, timeout: float | None) -> bool:
        if not self._always_checks:
            check_here()
        waiter = waiter_here()
        wanted = _HoldWanted(waiter, hold)
        outer = self._wanted.setdefault(hold.owner, wanted)
        if outer is not wanted and outer in self._waiting:
            return self._wait_within(outer, waiter, hold, timeout)
        try:
            self._waiting.add(wanted)
            if self._current.setdefault("hold", hold) is hold:
                # The lock was freed after the first attempt, or a finalizer handed it over. In the second case the
                # waiter is no longer queued, and is already unparked: parking returns at once.
                return self._waiting.withdraw(wanted) or bool(waiter._park_through())
            if self._is_owned() and self._waiting.withdraw(wanted):
                # A finalizer handed the lock to the outer wait of this thread after the check above.
                self._current["hold"].count += hold.count
                return True
            if timeout is None:
                list_contended(self)
            return waiter._park(lambda: self._waiting.withdraw(wanted), timeout) is not TIMED_OUT
        finally:
            if outer is wanted:
                del self._wanted[hold.owner]

    def _wait_within(self, outer: _HoldWanted, waiter: Waiter, hold: _Hold, timeout: float | None) -> bool:
        """Wait inside the wait `outer` of the same owner: the lock is handed over to both at once.

        In the queue this wait would stand behind the outer one, which ends only after this one: both would hang.
        """
        outer.within.add(waiter)
        granted = self._is_owned() and outer.within.withdraw(waiter)
        if not granted and outer.within.park(waiter, timeout) is TIMED_OUT:
            return False
        self._current["hold"].count += hold.count
        return True

    def release(self) -> None:
        """Undo one `acquire`. Not a checkpoint. The last release hands the lock to the first waiter, or frees it.

        Raises:
            RuntimeError: the caller does not own the lock.
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
            # A thread may have queued between `unpark_one` and the `del`. Own the lock again and hand it over.
            if not self._waiting or self._current.setdefault("hold", hold) is not hold:
                return

    def __enter__(self) -> bool:
        return self.acquire()

    # The locks of the standard library accept the call without arguments.
    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self.release()

    def locked(self) -> bool:
        """Return whether any thread owns the lock. Not a checkpoint; thread-safe."""
        return bool(self._current)

    def statistics(self) -> snapshots.LockStatistics:
        """Return the current state, owner and number of waiters. Not a checkpoint; thread-safe."""
        hold = self._current.get("hold")
        return _lock_statistics(hold is not None, None if hold is None else hold.owner, len(self._waiting))

    def _held(self) -> tuple[int | None, int]:
        """Return owner and count; two zeros while the lock is free."""
        hold = self._current.get("hold")
        return (0, 0) if hold is None else (hold.owner, hold.count)

    # The methods that `threading.Condition` and similar classes call on their lock.

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
        self._current, self._wanted = {}, {}
        self._waiting.forget_all()
