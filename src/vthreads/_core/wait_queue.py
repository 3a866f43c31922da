"""Fair FIFO of parked threads: the brick under every primitive.

A waiter is a virtual thread, or a stand-in for a plain OS thread; a queue does not care which. Standing in the queue is
the claim: whoever takes a waiter out, with a grant or with its withdrawal, is the only one to do so. That makes every
race between a wake-up and a cancellation come out one way or the other, across OS threads as well. Nothing here knows
locks, groups or cancellation.
"""

from __future__ import annotations

from _thread import TIMEOUT_MAX
from collections import OrderedDict
from collections.abc import Callable
from math import inf
from typing import Any, Protocol

from .current import running
from .engine import TIMED_OUT, compiled
from .originals import allocate_lock, interrupt_main

__all__ = ["OSThreadWaiter", "Ticket", "WaitQueue", "Waiter", "waiter_here"]


class Waiter(Protocol):
    """Somebody who can be parked and unparked once per wait."""

    def park(self, abort: Callable[[], bool], timeout: float | None = None) -> Any: ...

    def park_through(self) -> Any: ...

    def unpark(self, value: Any = True) -> bool: ...


class OSThreadWaiter:
    """One wait of a plain OS thread: blocks that thread."""

    __slots__ = ("_gate", "_value")

    def __init__(self) -> None:
        self._gate = allocate_lock()
        self._gate.acquire()
        self._value: Any = None

    def park(self, abort: Callable[[], bool], timeout: float | None = None) -> Any:
        """Block until unparked; the value given there, or TIMED_OUT after `timeout` seconds if `abort()` agrees."""
        try:
            woken = self._gate.acquire(True, -1 if timeout is None else min(max(timeout, 0), TIMEOUT_MAX))
        except BaseException:
            # A signal handler raised (Ctrl-C). If the wait was granted meanwhile, the grant must not be lost:
            # take it, and let the signal be raised again behind it.
            if abort():
                raise
            self._gate.acquire()
            interrupt_main()
            return self._value
        if not woken:
            if abort():
                return TIMED_OUT
            self._gate.acquire()
        return self._value

    def park_through(self) -> Any:
        """Block until unparked, whatever comes."""
        return self.park(lambda: False)

    def unpark(self, value: Any = True) -> bool:
        self._value = value
        self._gate.release()
        return True


def waiter_here() -> Waiter:
    """Whoever runs here, for one wait."""
    return running() or OSThreadWaiter()


class Ticket:
    """One wait in several queues at once: the first to unpark it wins, the others move on to their next waiter."""

    __slots__ = ("_claim", "_name", "_waiter")

    def __init__(self, waiter: Waiter, claim: Any = None, name: Any = None) -> None:
        self._waiter = waiter
        self._claim = claim or allocate_lock()
        self._name = name

    def named(self, name: Any) -> Ticket:
        """The same wait, standing in the queue of `name`."""
        return Ticket(self._waiter, self._claim, name)

    def withdraw(self) -> bool:
        return bool(self._claim.acquire(False))

    def unpark(self, value: Any = True) -> bool:
        if not self._claim.acquire(False):
            return False
        return self._waiter.unpark((self._name, value))


_making = allocate_lock()


@compiled
class WaitQueue:
    """Waiters in the order in which they came. Thread-safe; `len()` and truth tell how many wait."""

    __slots__ = ("_waiters",)

    def __init__(self) -> None:
        # Ordered, O(1) to delete from the middle and from the front; made late, since most queues stay empty.
        self._waiters: OrderedDict[Any, None] | None = None

    def __len__(self) -> int:
        return len(self._waiters) if self._waiters else 0

    def add(self, waiter: Any) -> None:
        if self._waiters is None:
            with _making:
                if self._waiters is None:
                    self._waiters = OrderedDict()
        self._waiters[waiter] = None

    def withdraw(self, waiter: Any) -> bool:
        """Take `waiter` out. False: somebody else did, and its wake-up is on its way."""
        return self._waiters is not None and self._waiters.pop(waiter, self) is not self

    def park(self, waiter: Waiter, timeout: float | None = None) -> Any:
        """Park `waiter`, which stands in this queue: what it was unparked with, or TIMED_OUT. May raise Cancelled."""
        return waiter.park(lambda: self.withdraw(waiter), timeout)

    def unpark_one(self, value: Any = True) -> bool:
        """Unpark the first; false if nobody waits."""
        while self._waiters:
            try:
                waiter, _ = self._waiters.popitem(last=False)
            except KeyError:
                # The last one withdrew meanwhile.
                return False
            if waiter.unpark(value):
                return True
        return False

    def first(self) -> Any:
        """The one who waits longest, left in the queue; None if nobody waits."""
        return next(iter(self._waiters), None) if self._waiters else None

    def unpark_all(self, value: Any = True) -> int:
        """Unpark those who wait now; how many."""
        unparked = 0
        for _ in range(len(self)):
            unparked += self.unpark_one(value)
        return unparked

    def forget_all(self) -> None:
        """After a fork: the waiters are not in this process."""
        self._waiters = None


def deadline_after(now: float, timeout: float | None) -> float:
    """The time `timeout` seconds from `now`; `inf` for None."""
    return inf if timeout is None else now + timeout
