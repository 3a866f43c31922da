"""The OS threads that make offloaded calls.

There are as many as calls at the same time, which the limiters of `calls` bound. One that gets no call for a while
ends. This module does not depend on the waiters of a call, or on the use of its outcome.
"""

from __future__ import annotations

import atexit
import sys
import threading
from collections.abc import Callable
from itertools import count
from typing import Any, Protocol

from .._core.carrier_end import end_lazy_carrier
from .._core.engine import Scheduler, Section
from .._core.originals import allocate_lock, get_ident
from .._core.os_thread_kinds import own_os_threads
from .._core.own_os_thread import start_own_os_thread
from .._core.participants import Participant, participate

__all__ = ["Pool", "Work", "no_more_os_threads", "the_pool"]

# Seconds after which an idle OS thread ends.
IDLE_SECONDS = 5.0


class Work(Protocol):
    """A call as a worker makes it."""

    # For dumps: the kind of the call, its function, and the time at which it began.
    kind: str
    function: Callable[..., Any]
    since: float
    # Whether the function is the user's, not the runtime's own.
    users_own: bool

    @property
    def abandoned(self) -> bool:
        """Whether no thread waits for the outcome."""

    @property
    def description(self) -> str:
        """Name the call, for messages."""

    def make(self) -> tuple[Any, BaseException | None]:
        """Make the call; return its value and its exception."""

    def end(self, value: Any, error: BaseException | None) -> None:
        """Store the outcome, or dispose of it."""

    def release(self) -> None:
        """Release the permit."""

    def unpark_waiters(self) -> None:
        """Unpark the threads that wait for the outcome."""


class _Worker:
    """An OS thread of the pool."""

    __slots__ = ("_gate", "_name", "_os_thread", "_pool", "_work")

    def __init__(self, pool: Pool, call: Work) -> None:
        self._gate = allocate_lock()
        self._gate.acquire()
        self._pool = pool
        self._name = f"vthreads-offload-{next(pool.numbers)}"
        # The object that user code gets from `threading.current_thread()`.
        self._os_thread: threading.Thread | None = None
        self._work: Work | None = call

    def hand(self, call: Work | None) -> None:
        """Pass work to a worker that was removed from the idle list; None ends its OS thread."""
        self._work = call
        self._gate.release()

    def live(self) -> None:
        """Make calls until none has come for `IDLE_SECONDS`."""
        own_os_threads.add(get_ident())
        try:
            # Debuggers and coverage set these for threads that `threading` starts, so apply them here too.
            sys.settrace(threading.gettrace())
            sys.setprofile(threading.getprofile())
            while self._make_call():
                pass
        finally:
            own_os_threads.discard(get_ident())

    def _enter_threading(self) -> None:
        """Register this OS thread with `threading`, under its name, while it makes a call of the user.

        At other times it is hidden: programs count and join the threads that `threading` lists, and test tools report
        one that remains after a test as a leak.
        """
        if self._os_thread is None:
            # `threading` creates a dummy object, as for any OS thread that it did not start.
            self._os_thread = threading.current_thread()
            self._os_thread.name = self._name
            threading._dangling.discard(self._os_thread)  # type: ignore[attr-defined]  # not in the type stubs
        threading._active[get_ident()] = self._os_thread  # type: ignore[attr-defined]  # likewise

    def _leave_threading(self) -> None:
        # Also removes the dummy object that a log message about a call of the runtime may have created.
        threading._active.pop(get_ident(), None)  # type: ignore[attr-defined]  # likewise

    def _make_call(self) -> bool:
        """Make the pending call; return False if this OS thread must end."""
        call, self._work = self._work, None
        if call is None:
            return False
        if call.users_own:
            self._enter_threading()
        outcome = call.make()
        if self._pool is not _pool:
            # The call forked, and this is the child process: it has no waiters here.
            return False
        # Virtual threads that the call has spawned belong to it, and cannot run while this OS thread waits for work. So
        # join them before the call ends.
        end_lazy_carrier()
        call.end(*outcome)
        del outcome
        # Before the waiter runs, because its code may count the OS threads.
        self._leave_threading()
        self._pool.ended(call, self)
        call.release()
        try:
            call.unpark_waiters()
        except OSError:
            # The waiter has found that the call is over, and its runtime has ended since: the poller is closed.
            pass
        del call
        return self._wait_for_work()

    def _wait_for_work(self) -> bool:
        if self._gate.acquire(True, IDLE_SECONDS):
            return True
        if self._pool.retire(self):
            return False
        # A call was passed to this worker just before it could retire.
        return self._gate.acquire()


class Pool:
    """The OS threads of this process, and the calls that they make. Thread-safe."""

    def __init__(self) -> None:
        # Guards all changes here and in the calls; each takes a few instructions. Reentrant: the garbage collector may
        # run a finalizer that ends or starts a call while this thread holds it.
        self.changing = Section()
        self.numbers = count(1)
        # A dict, because it is ordered and deletes from the middle in O(1).
        self.calls_under_way: dict[Work, None] = {}
        # Last in, first out, so that the workers at the bottom stay idle and end.
        self._idle: list[_Worker] = []
        self.closed = False
        self._closes_at_exit = False

    def run(self, call: Work) -> None:
        """Make an OS thread run `call`.

        Raises:
            RuntimeError: no OS thread is idle, and none can be started.
        """
        if self.closed:
            raise RuntimeError(f"{call.description} was not made: the interpreter is shutting down")
        with self.changing:
            self.calls_under_way[call] = None
            worker = self._idle.pop() if self._idle else None
        if worker is not None:
            worker.hand(call)
            return
        if not self._closes_at_exit:
            self._closes_at_exit = True
            atexit.register(self.close)
        try:
            start_own_os_thread(_Worker(self, call).live)
        except Exception:
            # The system starts no further OS thread. The caller gets the error, and no worker will end the call.
            self.calls_under_way.pop(call, None)
            raise

    def ended(self, call: Work, worker: _Worker) -> None:
        """Record that `call` has ended. `worker` becomes idle before the waiters run, so their next call can use it."""
        with self.changing:
            self.calls_under_way.pop(call, None)
            if not self.closed:
                self._idle.append(worker)
                return
        worker.hand(None)

    def retire(self, worker: _Worker) -> bool:
        """Remove `worker` from the idle list; return False if it was given work meanwhile."""
        with self.changing:
            if worker in self._idle:
                self._idle.remove(worker)
                return True
            return False

    def close(self) -> None:
        """Start no more OS threads, and end the idle ones, because the interpreter shuts down."""
        with self.changing:
            self.closed = True
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.hand(None)


_pool = Pool()


def the_pool() -> Pool:
    """Return the pool of this process; another one in the child of a fork. Thread-safe."""
    return _pool


def no_more_os_threads() -> bool:
    """Return whether the interpreter is shutting down, so that calls must run in place."""
    return _pool.closed or sys.is_finalizing()


def _forget_pool() -> None:
    """Start with an empty pool in the child of a fork: neither the OS threads nor their calls exist there."""
    global _pool
    _pool = Pool()


def _abandoned_calls(scheduler: Scheduler) -> bool:
    """Return whether an abandoned call of the user could still unpark a thread."""
    return any(call.users_own and call.abandoned for call in list(_pool.calls_under_way))


participate(__name__, Participant(forked=_forget_pool, may_unpark=_abandoned_calls))
