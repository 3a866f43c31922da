"""Calls on OS threads: what they wait for, who makes them, and what becomes of their outcome.

    QUEUED ──token──> UNDER_WAY ──returned──> OVER
       └──nobody wants it any more──────────────┘

A call waits for a token of its kind, runs on an OS thread of the pool, and is handed to whoever still wants it; an
outcome that nobody wants any more is disposed of. The token is kept until the call has really ended.
"""

from __future__ import annotations

import atexit
import logging
import sys
import threading
from collections.abc import Callable
from contextvars import Context
from enum import Enum
from itertools import count
from typing import Any, NamedTuple
from weakref import WeakSet

from ._core.clock import Clock
from ._core.current import carriers, on_carrier
from ._core.delivery import deferred_delivery
from ._core.engine import Scheduler
from ._core.originals import RLock, allocate_lock, get_ident
from ._core.own_os_thread import signal_mask, start_own_os_thread, with_signal_mask
from ._core.runtime import after_fork_hooks, outside_sources, own_os_threads
from ._core.semaphore import Semaphore
from ._core.thread import VirtualThread
from ._core.wait_queue import WaitQueue

__all__ = ["Call", "CallUnderWay", "Limiter", "calls_under_way", "name_of", "no_more_os_threads"]

# Seconds after which an OS thread without work ends.
IDLE_SECONDS = 5.0

logger = logging.getLogger("vthreads")


class CallUnderWay(NamedTuple):
    """A look at a call that occupies an OS thread.

    Attributes:
        kind: name of its limiter; "cancel" for a function that was given to end another call.
        function: what was called.
        since: time on `vthreads.now()` at which it began.
        abandoned: nobody waits for it any more.
    """

    kind: str
    function: Callable[..., Any]
    since: float
    abandoned: bool


class Limiter:
    """How many calls of one kind occupy an OS thread at once; the others wait in the order in which they came.

    Args:
        name: the kind, as it is shown.
        tokens: calls at once.

    Raises:
        ValueError: there is no token.
    """

    def __init__(self, name: str, tokens: int) -> None:
        if tokens < 1:
            raise ValueError(f"Limiter({name!r}, {tokens}): at least 1 call has to be possible at a time")
        self.name = name
        self.tokens = tokens
        self.permits = Semaphore(tokens)
        _limiters.add(self)

    def __repr__(self) -> str:
        statistics = self.permits.statistics()
        return f"<Limiter {self.name!r} free={statistics.value} of {self.tokens} waiting={statistics.waiting}>"


_limiters: WeakSet[Limiter] = WeakSet()


def calls_under_way() -> list[CallUnderWay]:
    """Tell the calls that occupy an OS thread, oldest first, abandoned ones too. Not a checkpoint; thread-safe."""
    return [CallUnderWay(call.kind, call.function, call.since, call.abandoned) for call in list(_pool.calls_under_way)]


# --- a call


class Phase(Enum):
    """See the diagram in the module's docstring."""

    QUEUED = "queued"
    UNDER_WAY = "under way"
    OVER = "over"


class Call:
    """One call on an OS thread, for one waiter or several. Thread-safe.

    Args:
        limiter: whose token it needs; None: it needs none.
        clock: tells since when it is under way.
        function, arguments, keywords: what to call.
        context: the contextvars that it sees; None for a call of the runtime's own.
        dispose: called with a result that nobody wants any more.
        when_over: called once, when the call is over or will never begin.
    """

    def __init__(
        self,
        limiter: Limiter | None,
        clock: Clock,
        function: Callable[..., Any],
        arguments: tuple[Any, ...] = (),
        keywords: dict[str, Any] | None = None,
        *,
        context: Context | None = None,
        dispose: Callable[[Any], object] | None = None,
        when_over: Callable[[Call], object] | None = None,
    ) -> None:
        self.kind = "cancel" if limiter is None else limiter.name
        self.function = function
        self.since = clock.now()
        self.value: Any = None
        self.error: BaseException | None = None
        self.users_own = context is not None
        self._permits = None if limiter is None else limiter.permits
        self.clock = clock
        self._arguments = arguments
        self._keywords = keywords or {}
        self._context = context
        # The user's code is called with the mask of the thread that asked for it, as in a thread that it starts.
        self._signal_mask = signal_mask() if self.users_own else ()
        self._dispose = dispose
        self._when_over = when_over
        self._phase = Phase.QUEUED
        self._wanted_by = 0
        self._waiting = WaitQueue()

    def __repr__(self) -> str:
        return f"<call of {name_of(self.function)} {self._phase.value}{' abandoned' if self.abandoned else ''}>"

    @property
    def abandoned(self) -> bool:
        """Whether nobody wants the outcome."""
        return self._wanted_by == 0

    @property
    def is_over(self) -> bool:
        """Whether the outcome is there, or never will be."""
        return self._phase is Phase.OVER

    # --- beginning

    def start(self) -> None:
        """Begin, or stand in the queue for a token; the caller wants the outcome, until it leaves."""
        self._wanted_by = 1
        if self._permits is None or self._permits.take_or_queue(self):
            self.unpark()

    def unpark(self, value: Any = True) -> bool:
        """Begin, holding a token (called by whoever gave it back)."""
        self._phase = Phase.UNDER_WAY
        self.since = self.clock.now()
        try:
            _pool.run(self)
        except RuntimeError as start_error:  # raised to whoever waits for the call
            start_error.add_note(f"no OS thread could be started to call {name_of(self.function)}")
            self.end(None, start_error)
            self.release()
            self.tell()
        return True

    def withdraw(self) -> bool:
        """Take it out of the queue for a token: true if it never began and never will."""
        with _pool.changing:
            if self._permits is None or not self._permits.withdraw(self):
                return False
            self._phase = Phase.OVER
        # There is no result to dispose of.
        self._dispose = None
        self._tell_over()
        return True

    # --- waiting for it (called in a virtual thread)

    def join(self) -> bool:
        """Want the outcome as well; false if there is no waiting any more, because it is over or abandoned."""
        with _pool.changing:
            if self.abandoned or self.is_over:
                return False
            self._wanted_by += 1
            return True

    def leave(self) -> bool:
        """Want the outcome no more; true if the call goes on with nobody waiting."""
        with _pool.changing:
            self._wanted_by -= 1
            if self._wanted_by:
                return False
            # Then the outcome is there, and was still wanted when it came.
            is_over = self.is_over
        if is_over:
            self._drop_outcome()
            return False
        return not self.withdraw()

    def park(self, thread: VirtualThread, park: Callable[[Callable[[], bool]], Any]) -> Any:
        """Park `thread` with its method `park` until the call is over, or somebody unparks it for another reason."""
        with _pool.changing:
            if self.is_over:
                return True
            self._waiting.add(thread)
        return park(lambda: self._waiting.withdraw(thread))

    def unpark_early(self, thread: VirtualThread) -> None:
        """Unpark `thread`, with False, if it waits for the outcome and does not have it yet."""
        if self._waiting.withdraw(thread):
            thread.unpark(False)

    # --- running (called on an OS thread of the pool)

    def make(self) -> tuple[Any, BaseException | None]:
        """Make the call: its value and its exception."""
        try:
            if self._context is None:
                return self.function(*self._arguments, **self._keywords), None
            with with_signal_mask(self._signal_mask):
                return self._context.run(self.function, *self._arguments, **self._keywords), None
        except BaseException as error:  # noqa: BLE001  # carried to whoever waits for the result
            # This frame would only be noise in the user's traceback.
            return None, error.with_traceback(error.__traceback__ and error.__traceback__.tb_next)

    def end(self, value: Any, error: BaseException | None) -> None:
        """Keep the outcome, or drop it if nobody wants it."""
        # Nobody needs them any more, and they may be large.
        self._arguments, self._keywords, self._context = (), {}, None
        with _pool.changing:
            self.value, self.error = value, error
            self._phase = Phase.OVER
            unwanted = self.abandoned
        self._tell_over()
        if unwanted:
            self._drop_outcome()

    def release(self) -> None:
        """Give the token back."""
        if self._permits is not None:
            self._permits.release()

    def tell(self) -> None:
        """Unpark those who wait."""
        if self.abandoned and self.users_own:
            # One call less that could unpark somebody: a carrier where all is parked may now be in a deadlock.
            for scheduler in list(carriers.values()):
                scheduler.post(_look_again)
        self._waiting.unpark_all()

    def _tell_over(self) -> None:
        when_over, self._when_over = self._when_over, None
        if when_over is not None:
            when_over(self)

    def _drop_outcome(self) -> None:
        value, error, self.value, self.error = self.value, self.error, None, None
        if error is not None:
            # A function that was to end another call should have told somebody, and now that call goes on.
            level = logging.ERROR if self._permits is None else logging.INFO
            logger.log(level, "an abandoned call of %r failed", self.function, exc_info=error)
        elif self._dispose is not None:
            try:
                with deferred_delivery():
                    self._dispose(value)
            except Exception:
                logger.exception("the late result of %r could not be disposed of", self.function)


def name_of(function: Callable[..., Any]) -> str:
    """Name `function` for a message. Not by its repr: that is the user's code, and may fail."""
    name = getattr(function, "__qualname__", None)
    return name if isinstance(name, str) else f"a {type(function).__qualname__}"


def _look_again() -> None:
    """Being woken is all."""


# --- OS threads


class _Worker:
    """One OS thread of the pool."""

    __slots__ = ("_gate", "_name", "_pool", "_work")

    def __init__(self, pool: _Pool, call: Call) -> None:
        self._gate = allocate_lock()
        self._gate.acquire()
        self._pool = pool
        self._name = f"vthreads-offload-{next(pool.numbers)}"
        self._work: Call | None = call

    def hand(self, call: Call | None) -> None:
        """Give work to a worker that was taken out of the idle ones; None: end."""
        self._work = call
        self._gate.release()

    def live(self) -> None:
        """Make calls until there has been none for a while."""
        own_os_threads.add(get_ident())
        try:
            self._enter_threading()
            while self._make_call():
                pass
            self._leave_threading()
        finally:
            own_os_threads.discard(get_ident())

    def _enter_threading(self) -> None:
        """Become known to `threading`, which supplies a daemon's object for an OS thread that it did not start.

        It was started below `threading`, whoever has patched that.
        """
        threading.current_thread().name = self._name
        # Debuggers and coverage look into what `threading` starts.
        sys.settrace(threading.gettrace())
        sys.setprofile(threading.getprofile())

    def _leave_threading(self) -> None:
        """End as `threading` ends its own; if this OS thread became a carrier, its virtual threads are joined here."""
        threading.current_thread()._delete()  # type: ignore[attr-defined]  # not in the type stubs

    def _make_call(self) -> bool:
        """Make the call at hand; false if this OS thread has to end."""
        call, self._work = self._work, None
        if call is None:
            return False
        outcome = call.make()
        if self._pool is not _pool:
            # The call forked, and this is the child: nobody here waits for it.
            return False
        if on_carrier():
            # The call used virtual threads. Those that it left are part of it, and could not run while this waits.
            self._leave_threading()
            self._enter_threading()
        call.end(*outcome)
        del outcome
        self._pool.ended(call, self)
        call.release()
        try:
            call.tell()
        except OSError:
            # Unparked by the message itself, the waiter has ended its runtime: there is no poller to interrupt.
            pass
        del call
        return self._wait_for_work()

    def _wait_for_work(self) -> bool:
        if self._gate.acquire(True, IDLE_SECONDS):
            return True
        if self._pool.retire(self):
            return False
        # Work was handed over at the last moment.
        return self._gate.acquire()


class _Pool:
    """The OS threads of this process that make offloaded calls.

    As many as there are calls at once, which the limiters bound.
    """

    def __init__(self) -> None:
        # Guards all changes here and in the calls; they take a few instructions. Reentrant, because a finalizer may
        # run inside.
        self.changing = RLock()
        self.numbers = count(1)
        # In order, and O(1) to delete from the middle.
        self.calls_under_way: dict[Call, None] = {}
        # The last one to become idle is the first to work again, so that the others reach their end.
        self._idle: list[_Worker] = []
        self.closed = False
        self._closes_at_exit = False

    def run(self, call: Call) -> None:
        """Have `call` made by an OS thread.

        Raises:
            RuntimeError: there is none, and none can be started.
        """
        if self.closed:
            raise RuntimeError(f"the interpreter is ending; {name_of(call.function)} was not called")
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
            self.calls_under_way.pop(call, None)
            raise

    def ended(self, call: Call, worker: _Worker) -> None:
        """`call` is over; `worker` is free before anybody is told, and so there for the next call."""
        with self.changing:
            self.calls_under_way.pop(call, None)
            if not self.closed:
                self._idle.append(worker)
                return
        worker.hand(None)

    def retire(self, worker: _Worker) -> bool:
        """Take `worker` out of the idle ones; false if it was given work."""
        with self.changing:
            if worker in self._idle:
                self._idle.remove(worker)
                return True
            return False

    def close(self) -> None:
        """Start no OS thread any more, and end those without work: the interpreter ends."""
        with self.changing:
            self.closed = True
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.hand(None)


_pool = _Pool()


def no_more_os_threads() -> bool:
    """Whether the interpreter is ending, and a call has to be made in place."""
    return _pool.closed or sys.is_finalizing()


def _forget_pool() -> None:
    """In the child of a fork: the OS threads are not there, nor the calls that they made."""
    global _pool
    _pool = _Pool()
    for limiter in list(_limiters):
        limiter.permits = Semaphore(limiter.tokens)


def _abandoned_calls(scheduler: Scheduler) -> bool:
    """Whether an abandoned call of the user's could still unpark somebody."""
    return any(call.users_own and call.abandoned for call in list(_pool.calls_under_way))


after_fork_hooks.append(_forget_pool)
outside_sources.append(_abandoned_calls)
