"""Locks, conditions, events and barriers: shaped as in `threading`, fair, cancellable, for all kinds of threads.

Each works between virtual threads of any carrier and plain OS threads. What is waited for is handed over to the first
in the queue, so nobody overtakes; a wait that ended with an exception has changed nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from threading import BrokenBarrierError
from types import TracebackType
from typing import Any, NoReturn

from ._core.current import checkpoint, current_ident
from ._core.engine import TIMED_OUT
from ._core.originals import RLock as Section
from ._core.originals import allocate_lock
from ._core.runtime import now
from ._core.semaphore import BoundedSemaphore, Semaphore, SemaphoreStatistics
from ._core.thread import deferred_delivery
from ._core.wait_queue import Waiter, WaitQueue, waiter_here

__all__ = [
    "Barrier",
    "BarrierStatistics",
    "BoundedSemaphore",
    "BrokenBarrierError",
    "Condition",
    "ConditionStatistics",
    "ConditionWaiterLock",
    "Event",
    "EventStatistics",
    "Lock",
    "LockStatistics",
    "RLock",
    "Semaphore",
    "SemaphoreStatistics",
    "StandardLock",
    "StandardRLock",
]


@dataclass(frozen=True)
class LockStatistics:
    """A look at a lock: whether it is held, by whom if that is known (a thread's ident), and how many wait."""

    locked: bool
    owner: int | None
    waiting: int


def _checked_timeout(blocking: bool, timeout: float) -> float | None:
    """Turn the arguments of `acquire` into seconds or None; say what is wrong with them as `threading` does."""
    if not blocking and timeout != -1:
        raise ValueError("can't specify a timeout for a non-blocking call")
    if not timeout >= 0 and timeout != -1:
        raise ValueError("timeout value must be a non-negative number")
    if timeout > threading.TIMEOUT_MAX:
        raise OverflowError("timeout value is too large")
    return None if timeout == -1 else timeout


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
            return self._taken.acquire(False) or self._wait(None)
        seconds = _checked_timeout(blocking, timeout)
        waits = blocking and seconds != 0
        if waits and self._always_checks:
            checkpoint()
        return self._taken.acquire(False) or (waits and self._wait(seconds))

    def _wait(self, timeout: float | None) -> bool:
        if not self._always_checks:
            checkpoint()
        waiter = waiter_here()
        self._waiting.add(waiter)
        if self._taken.acquire(False):
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
            if not self._waiting or not self._taken.acquire(False):
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
            seconds = _checked_timeout(blocking, timeout)
            return self._wait_for_notify(seconds if blocking else 0)
        taken = super().acquire(blocking, timeout)
        if taken:
            self._holder, self._awaited = me, False
        return taken

    def _wait_for_notify(self, timeout: float | None) -> bool:
        waiter = waiter_here()
        with self._changing:
            if self._taken.acquire(False):
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
        seconds = None if blocking and timeout == -1 else _checked_timeout(blocking, timeout)
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


class StandardRLock(RLock):
    """What `threading.RLock` becomes: taking it while it is free or owned is no checkpoint and never raises."""

    __slots__ = ()
    _always_checks = False

    def __init__(self, *_: Any, **__: Any) -> None:
        # The original takes any arguments, and does nothing with them.
        super().__init__()

    def __repr__(self) -> str:
        hold = self._current.get("hold") or _Hold(0, 0)
        held = f"owner={hold.owner} count={hold.count}"
        return f"<{'locked' if hold.count else 'unlocked'} _thread.RLock object {held} at {id(self):#x}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("cannot pickle '_thread.RLock' object")


# Where programs find them, and what they read in messages.
StandardLock.__module__, StandardLock.__qualname__, StandardLock.__name__ = "_thread", "lock", "lock"
StandardRLock.__module__, StandardRLock.__qualname__, StandardRLock.__name__ = "_thread", "RLock", "RLock"


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


@dataclass(frozen=True)
class EventStatistics:
    """A look at an event: whether it is set, and how many wait."""

    is_set: bool
    waiting: int


class Event:
    """As `threading.Event`: a flag that threads wait for."""

    __slots__ = ("__weakref__", "_flag", "_waiting")

    def __init__(self) -> None:
        self._flag = False
        self._waiting = WaitQueue()

    def __repr__(self) -> str:
        return f"<Event {'set' if self._flag else 'unset'} waiting={len(self._waiting)}>"

    def is_set(self) -> bool:
        """Whether the flag is set. Not a checkpoint; thread-safe."""
        return self._flag

    def set(self) -> None:
        """Set the flag and unpark all who wait. Not a checkpoint; thread-safe."""
        self._flag = True
        self._waiting.unpark_all()

    def clear(self) -> None:
        """Clear the flag. Not a checkpoint; thread-safe."""
        self._flag = False

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the flag is set. A checkpoint, unless the timeout is 0; thread-safe.

        Args:
            timeout: seconds, or None for no limit.

        Returns:
            False if the timeout came first.
        """
        if timeout is not None and timeout <= 0:
            return self._flag
        checkpoint()
        if self._flag:
            return True
        waiter = waiter_here()
        self._waiting.add(waiter)
        # Who sets the flag looks for waiters afterwards: either it sees this one, or the flag is seen here.
        if self._flag and self._waiting.withdraw(waiter):
            return True
        return self._waiting.park(waiter, timeout) is not TIMED_OUT

    def statistics(self) -> EventStatistics:
        """Flag and waiters right now. Not a checkpoint; thread-safe."""
        return EventStatistics(self._flag, len(self._waiting))


@dataclass(frozen=True)
class BarrierStatistics:
    """A look at a barrier: how many wait, how many it takes, and whether it is broken."""

    waiting: int
    parties: int
    broken: bool


class _Round:
    """One filling of a barrier."""

    __slots__ = ("arrived", "broken", "successor", "waiting")

    def __init__(self) -> None:
        self.arrived = 0
        self.broken = False
        self.waiting = WaitQueue()
        # The next filling, which begins when the last party has arrived here.
        self.successor: _Round | None = None


class Barrier:
    """As `threading.Barrier`: `parties` threads wait for one another, again and again.

    A party that leaves, by a timeout, a cancellation or an exception of `action`, breaks it for all: they get
    `threading.BrokenBarrierError`.

    Args:
        parties: how many it takes, 1 or more.
        action: called by the last to arrive, before any of them goes on.
        timeout: seconds, the default of `wait`.

    Raises:
        ValueError: `parties` is less than 1.
    """

    def __init__(self, parties: int, action: Callable[[], Any] | None = None, timeout: float | None = None) -> None:
        if parties < 1:
            raise ValueError(f"a barrier takes 1 party or more, not {parties}")
        self._parties = parties
        self._action = action
        self._timeout = timeout
        # Reentrant, because a finalizer that aborts may run inside.
        self._changing = Section()
        self._round = _Round()

    def __repr__(self) -> str:
        state = "broken" if self.broken else f"waiting={self.n_waiting}/{self._parties}"
        return f"<Barrier {state}>"

    @property
    def parties(self) -> int:
        """How many it takes."""
        return self._parties

    @property
    def n_waiting(self) -> int:
        """How many wait right now."""
        return len(self._round.waiting)

    @property
    def broken(self) -> bool:
        """Whether a party has left it."""
        return self._round.broken

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the others. A checkpoint, unless the timeout is 0; thread-safe.

        Args:
            timeout: seconds; None: that of the barrier.

        Returns:
            A different number from 0 to `parties - 1` for each party of a round.

        Raises:
            threading.BrokenBarrierError: a party left, or the barrier was reset or aborted.
        """
        seconds = self._timeout if timeout is None else timeout
        at_once = seconds is not None and seconds <= 0
        if not at_once:
            checkpoint()
        waiter = waiter_here()
        with self._changing:
            current = self._round
            if current.broken:
                raise BrokenBarrierError
            index, current.arrived = current.arrived, current.arrived + 1
            is_last = current.arrived == self._parties
            if is_last:
                self._round = current.successor = _Round()
            elif at_once:
                self._break(current)
                raise BrokenBarrierError
            else:
                current.waiting.add(waiter)
                if current.broken:
                    # By a finalizer, between the look and the queueing.
                    current.waiting.unpark_all(False)
        if is_last:
            self._open(current)
        elif waiter.park(lambda: self._leave(current, waiter), seconds) is not True:
            raise BrokenBarrierError
        return index

    def _open(self, current: _Round) -> None:
        try:
            if self._action is not None:
                self._action()
        except BaseException:
            self._break(current)
            raise
        with self._changing:
            if current.broken:
                raise BrokenBarrierError
            current.waiting.unpark_all(True)

    def _leave(self, current: _Round, waiter: Waiter) -> bool:
        # In one step, so that no round opens after a party has left it.
        with self._changing:
            left = current.waiting.withdraw(waiter)
            if left:
                self._break(current)
            return left

    def _break(self, current: _Round | None) -> None:
        with self._changing:
            while current is not None:
                current.broken = True
                current.waiting.unpark_all(False)
                current = current.successor

    def reset(self) -> None:
        """Make it as new; those who wait get `BrokenBarrierError`. Not a checkpoint; thread-safe."""
        with self._changing:
            current, self._round = self._round, _Round()
            self._break(current)

    def abort(self) -> None:
        """Break it for good; those who wait get `BrokenBarrierError`. Not a checkpoint; thread-safe."""
        with self._changing:
            self._break(self._round)

    def statistics(self) -> BarrierStatistics:
        """Waiters, parties and state right now. Not a checkpoint; thread-safe."""
        return BarrierStatistics(self.n_waiting, self._parties, self.broken)
