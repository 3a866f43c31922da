"""Fair FIFO queue of parked threads, on which all primitives are built.

A waiter is a virtual thread, or an object for a plain OS thread; the queue treats them alike. A place in the queue is a
claim: only one caller can remove a waiter, either to grant its wait or to withdraw it. So each race between an unpark
and a cancellation has exactly one winner, across OS threads too. This module does not depend on locks, groups or
cancellation.
"""

from __future__ import annotations

import sys
from _thread import TIMEOUT_MAX, _local
from collections import OrderedDict
from collections.abc import Callable
from math import inf
from types import FrameType
from typing import Any, Protocol

from .engine import ABORTED, TIMED_OUT, State, carriers, compiled, running
from .originals import allocate_lock, get_ident, interrupt_main
from .spawn_site import first_frame_outside, is_own_frame

__all__ = [
    "OSThreadWaiter",
    "StandIn",
    "Ticket",
    "WaitQueue",
    "Waiter",
    "forget_waiters_of_other_os_threads",
    "making_queues",
    "outer_wait",
    "refuse_to_wait_inside_scheduler",
    "stand_ins",
    "waiter_here",
]


class Waiter(Protocol):
    """A thread that can be parked and unparked once per wait. Its state is ENDED if it did not survive a fork."""

    @property
    def state(self) -> State: ...

    def _park(self, abort: Callable[[], bool], timeout: float | None = None) -> Any: ...

    def _park_through(self) -> Any: ...

    def _unpark(self, value: Any = True) -> bool: ...


class _Process:
    """This process; the child of a fork is another one."""

    current = object()


class _Latest(_local):
    """The most recent wait of an OS thread."""

    waiter: Any = None


_latest = _Latest()


class OSThreadWaiter:
    """A wait of a plain OS thread, which blocks that thread."""

    __slots__ = ("__weakref__", "_abort", "_error", "_gate", "_process", "_value", "ident", "outer")

    def __init__(self) -> None:
        self.ident = get_ident()
        self._process = _Process.current
        self._gate = allocate_lock()
        self._gate.acquire()
        self._value: Any = None
        # The undo function of a wait without a deadline, from the park on; and the exception that ended the wait.
        self._abort: Callable[[], bool] | None = None
        self._error: BaseException | None = None
        # The previous wait. If it is still in a queue, this wait belongs to foreign code that interrupted it.
        self.outer: Any = _latest.waiter
        if self.outer is not None:
            self.outer.outer = None
        _latest.waiter = self

    def _park(self, abort: Callable[[], bool], timeout: float | None = None) -> Any:
        """Block until unparked, and return the value of `_unpark`; TIMED_OUT after `timeout` seconds if `abort()`."""
        if timeout is None:
            self._abort = abort
        try:
            woken = self._gate.acquire(True, -1 if timeout is None else min(max(timeout, 0), TIMEOUT_MAX))
        except BaseException:
            # A signal handler raised (Ctrl-C). If the wait was granted meanwhile, that grant must not be lost: accept
            # it, and raise the signal again afterwards.
            if abort():
                raise
            self._gate.acquire()
            interrupt_main()
            return self._answer()
        if not woken:
            if abort():
                return TIMED_OUT
            self._gate.acquire()
        return self._answer()

    def _answer(self) -> Any:
        # Refer to the undo function no longer: it may refer to this waiter.
        self._abort = None
        error, self._error = self._error, None
        if error is not None:
            raise error
        # Refer to the value no longer: `_latest` keeps this waiter until the next wait of the OS thread.
        value, self._value = self._value, None
        return value

    def _park_through(self) -> Any:
        """Block until unparked; nothing else ends the wait."""
        return self._park(lambda: False)

    @property
    def state(self) -> State:
        return State.PARKED if self._process is _Process.current else State.ENDED

    def _unpark(self, value: Any = True) -> bool:
        if self._process is not _Process.current:
            # The thread did not survive a fork: what it waits for must go to the next waiter.
            return False
        self._value = value
        self._gate.release()
        return True

    def interrupt(self, error: BaseException) -> bool:
        """Raise `error` in the wait if it has no deadline and can still be withdrawn; return whether. Thread-safe."""
        abort = self._abort
        if abort is None or not abort():
            return False
        self._error = error
        self._gate.release()
        return True

    def is_parked_without_deadline(self) -> bool:
        """Return whether the wait has begun, has no deadline and has not returned. Thread-safe."""
        return self._abort is not None


def forget_waiters_of_other_os_threads() -> None:
    """Make all waiters refuse to be unparked, except those of this OS thread: in the child of a fork it is alone."""
    _Process.current = object()
    waiter = _latest.waiter
    while waiter is not None:
        waiter._process = _Process.current
        waiter = waiter.outer


# The fibers that wait in place of virtual threads.
stand_ins: dict[Any, None] = {}


class StandIn:
    """Waits in place of a virtual thread that has begun a wait but has not parked yet.

    A finalizer or trace function ran in between and waits too. The thread is in a queue already: if it parked for the
    inner wait, a grant of the outer wait would end the inner one, and would be lost for the outer one.
    """

    __slots__ = ("_other", "_thread", "outer")

    def __init__(self, thread: Any) -> None:
        self.outer = self._thread = thread
        kind: Any = type(thread)
        self._other = kind.__new__(kind)._init_thread(thread._scheduler, None)
        self._other._thread_ident = thread._thread_ident

    def _park(self, abort: Callable[[], bool] | None = None, timeout: float | None = None) -> Any:
        """Park until unparked or until `timeout`. Pending exceptions of the thread are raised in its outer wait."""
        thread, other, scheduler = self._thread, self._other, self._thread._scheduler
        deadline = deadline_after(scheduler.clock.now(), timeout)
        stand_ins[other] = None
        # In state READY, an unpark of the thread is stored for its outer wait.
        thread.state = State.READY
        scheduler.running = other
        try:
            answer = scheduler.park(abort, deadline)
        finally:
            thread.state = State.RUNNING
            scheduler.running = thread
            del stand_ins[other]
        if answer is ABORTED:
            other._raise_aborted()
        return answer

    _park_for_interrupts = _park

    def _park_through(self) -> Any:
        """Park until unparked; nothing else ends the wait."""
        return self._park(lambda: False)

    @property
    def state(self) -> State:
        return self._other.state  # type: ignore[no-any-return]  # a fiber

    def _unpark(self, value: Any = True) -> bool:
        return bool(self._other._unpark(value))


def refuse_to_wait_inside_scheduler() -> None:
    """Raise for a call that would wait, made on a carrier while none of its virtual threads runs.

    A finalizer, or a function that traces or profiles, can be called there. To block the OS thread would be a deadlock
    if a virtual thread of this carrier has to end the wait.

    Raises:
        RuntimeError: the caller is inside the scheduler.
    """
    if get_ident() in carriers and running() is None:
        raise RuntimeError(
            "a call that may wait was made inside the scheduler, between two virtual threads (by a finalizer or a "
            "trace function); let vthreads.spawn run it in a virtual thread instead"
        )


def _is_within_wait(frame: FrameType | None) -> bool:
    """Return whether the code that called the package in `frame` was called, at some depth, by a wait of the package.

    A function that waits calls `waiter_here` itself. Others may be on the stack in any number: the server calls
    handlers, and a buffer reads from a socket.
    """
    frame = first_frame_outside(frame)
    while frame is not None:
        if waiter_here.__name__ in frame.f_code.co_names and is_own_frame(frame):
            return True
        frame = frame.f_back
    return False


@compiled
def waiter_here() -> Any:
    """Return a waiter for the code that runs here, for one wait. Call it just before queueing or parking.

    Raises:
        RuntimeError: the caller is inside the scheduler.
    """
    thread = running()
    if thread is None:
        refuse_to_wait_inside_scheduler()
        return OSThreadWaiter()
    # The flag may be left over from a wait that did not have to park, so look for that wait on the stack too.
    if thread._has_begun_to_wait and _is_within_wait(sys._getframe(1)):
        return StandIn(thread)
    thread._has_begun_to_wait = True
    return thread


def outer_wait(waiter: Any) -> Any:
    """Return the wait of the same thread that `waiter` may have interrupted; None if there is none."""
    return getattr(waiter, "outer", None)


class Ticket:
    """A wait in several queues at once: the first queue to unpark it wins, the others skip to their next waiter."""

    __slots__ = ("_claim", "_name", "_waiter")

    def __init__(self, waiter: Waiter, claim: Any = None, name: Any = None) -> None:
        self._waiter = waiter
        self._claim = claim or allocate_lock()
        self._name = name

    def named(self, name: Any) -> Ticket:
        """Return a ticket for the same wait, for the queue of `name`."""
        return Ticket(self._waiter, self._claim, name)

    def withdraw(self) -> bool:
        return bool(self._claim.acquire(False))

    def _unpark(self, value: Any = True) -> bool:
        if not self._claim.acquire(False):
            return False
        return self._waiter._unpark((self._name, value))


making_queues = allocate_lock()


@compiled
class WaitQueue:
    """Waiters in the order in which they queued. Thread-safe; `len()` is their number, and an empty queue is false."""

    __slots__ = ("_waiters",)

    def __init__(self) -> None:
        # Ordered, and O(1) to delete anywhere. Created at the first use, because most queues stay empty.
        self._waiters: OrderedDict[Any, None] | None = None

    def __len__(self) -> int:
        return len(self._waiters) if self._waiters else 0

    def __contains__(self, waiter: Any) -> bool:
        return self._waiters is not None and waiter in self._waiters

    def add(self, waiter: Any) -> None:
        if self._waiters is None:
            # Create the dict outside the lock: the allocation may run a finalizer, which may need the lock too.
            waiters: OrderedDict[Any, None] = OrderedDict()
            with making_queues:
                if self._waiters is None:
                    self._waiters = waiters
        self._waiters[waiter] = None

    def withdraw(self, waiter: Any) -> bool:
        """Remove `waiter`. False: another caller has removed and unparked it."""
        return self._waiters is not None and self._waiters.pop(waiter, self) is not self

    def park(self, waiter: Waiter, timeout: float | None = None) -> Any:
        """Park `waiter`, which is queued here. Return the value of `_unpark`, or TIMED_OUT. May raise Cancelled."""
        return waiter._park(lambda: self.withdraw(waiter), timeout)

    def unpark_one(self, value: Any = True) -> bool:
        """Unpark the first waiter; return False if there is none."""
        while self._waiters:
            try:
                waiter, _ = self._waiters.popitem(last=False)
            except KeyError:
                # The last waiter withdrew meanwhile.
                return False
            if waiter._unpark(value):
                return True
        return False

    def waiters(self) -> list[Any]:
        """Return the current waiters in no order, for inspection from any OS thread."""
        return list(self._waiters or ())

    def first(self) -> Any:
        """Return the first waiter without removing it; None if there is none."""
        return next(iter(self._waiters), None) if self._waiters else None

    def unpark_all(self, value: Any = True) -> int:
        """Unpark the current waiters; return their number."""
        unparked = 0
        for _ in range(len(self)):
            unparked += self.unpark_one(value)
        return unparked

    def forget_all(self) -> None:
        """Drop all waiters after a fork: they do not exist in this process."""
        self._waiters = None


def deadline_after(now: float, timeout: float | None) -> float:
    """Return the time `timeout` seconds after `now`; `inf` for None."""
    return inf if timeout is None else now + timeout
