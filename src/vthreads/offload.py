"""Blocking calls on OS threads, while only the virtual thread that wants the result waits.

    QUEUED ──token──> UNDER_WAY ──returned──> OVER
       └──nobody wants it any more──────────────┘

A call waits for a token of its kind, runs on an OS thread of the pool, and is handed to whoever still wants it; an
outcome that nobody wants any more is disposed of. An OS thread cannot be stopped: what a cancelled waiter does with a
call that goes on is the choice of the caller, made in `offload`. The token is kept until the call has really ended.
"""

from __future__ import annotations

import atexit
import logging
import sys
import threading
import traceback
from _thread import start_new_thread
from collections.abc import Callable
from concurrent.futures import CancelledError
from contextvars import Context, copy_context
from enum import Enum
from itertools import count
from typing import Any, Literal, NamedTuple, ParamSpec, TypeVar
from weakref import WeakSet

from ._core.cancel import CancelNode, CancelScope
from ._core.clock import Clock
from ._core.current import carriers, on_carrier, started_here
from ._core.engine import Scheduler
from ._core.originals import RLock, allocate_lock, get_ident
from ._core.runtime import after_fork_hooks, outside_sources, own_os_threads
from ._core.semaphore import Semaphore
from ._core.thread import VirtualThread, deferred_delivery
from ._core.wait_queue import WaitQueue
from .errors import Cancelled

__all__ = [
    "Call",
    "CallUnderWay",
    "Limiter",
    "calls_under_way",
    "leave_calls_behind",
    "offload",
    "offload_abandonable",
    "wait_or_leave",
]

P = ParamSpec("P")
T = TypeVar("T")

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

default_limiter = Limiter("default", 64)


# --- what users call


def offload(
    fn: Callable[..., T],
    /,
    *args: Any,
    on_cancel: Literal["wait", "abandon"] = "wait",
    cancel: Callable[[], object] | None = None,
    **kwargs: Any,
) -> T:
    """Call `fn(*args, **kwargs)` on an OS thread; only this virtual thread waits. A checkpoint; starts the runtime.

    The call sees a copy of the caller's contextvars. At most 64 calls run at once; the others wait for their turn. If
    `Cancelled` comes before the call began, nothing has happened.

    An interrupt (Ctrl-C is one) abandons the call, whatever `on_cancel` says. While the interpreter ends, when no OS
    thread can be started any more, the call is made in place.

    Args:
        fn: what to call. Give keywords named `on_cancel` or `cancel` to it with `functools.partial`.
        on_cancel: what a cancellation does once the call has begun. "wait": the call is waited for, its result is
            returned or its exception raised, and `Cancelled` comes at the next checkpoint; if it is still running when
            the cleanup grace is over, that is printed to stderr, once, with the failures that are held up. "abandon":
            `Cancelled` is raised at once, and what the call returns or raises later is dropped.
        cancel: a function that makes the call return (`connection.cancel`, `sqlite3.Connection.interrupt`). On
            cancellation it is called, once, on another OS thread; then the call is waited for as with "wait", but an
            exception of it is replaced by `Cancelled`. With "abandon" it is called as well, and nothing is waited for.

    Returns:
        What `fn` returned.

    Raises:
        BaseException: whatever `fn` raised.
        concurrent.futures.CancelledError: `fn` ended with a `Cancelled` of a runtime of its own.
        RuntimeError: no OS thread could be started.
        ValueError: `on_cancel` is something else.
    """
    if on_cancel not in ("wait", "abandon"):
        raise ValueError(f'on_cancel={on_cancel!r}: choose "wait" or "abandon"')
    if _no_more_os_threads():
        return fn(*args, **kwargs)
    thread = started_here()
    thread.check()
    call = Call(default_limiter, thread.scheduler.clock, fn, args, kwargs, context=copy_context())
    call.start()
    if on_cancel == "abandon":
        wait_or_leave(thread, call, cancel)
    elif _wait_through(thread, call, cancel) and cancel is not None:
        _prefer_cancelled(thread, call)
    return _result_of(call)  # type: ignore[no-any-return]  # what `fn` returned


def offload_abandonable(
    limiter: Limiter, fn: Callable[P, T], dispose: Callable[[T], object] | None, /, *args: P.args, **kwargs: P.kwargs
) -> T:
    """`offload` for the runtime's own calls: of a kind of their own, and abandoned when cancelled.

    Args:
        limiter: the kind.
        fn: what to call; without the caller's contextvars.
        dispose: called with a result that came too late, on whichever OS thread; it must not block. It closes the
            descriptor that was opened, for example.
    """
    if _no_more_os_threads():
        return fn(*args, **kwargs)
    thread = started_here()
    thread.check()
    call = Call(limiter, thread.scheduler.clock, fn, args, kwargs, dispose=dispose)
    call.start()
    wait_or_leave(thread, call)
    return _result_of(call)  # type: ignore[no-any-return]  # what `fn` returned


def calls_under_way() -> list[CallUnderWay]:
    """Tell the calls that occupy an OS thread, oldest first, abandoned ones too. Not a checkpoint; thread-safe."""
    return [CallUnderWay(call.kind, call.function, call.since, call.abandoned) for call in list(_pool.calls_under_way)]


def leave_calls_behind(*, even_in_grace: bool = False) -> None:
    """Let cancelled threads that still wait for their call abandon it. Not a checkpoint; thread- and signal-safe.

    For Ctrl-C: the thread that is held up need not be the one that `KeyboardInterrupt` is raised in.

    Args:
        even_in_grace: also those whose cleanup grace is not over yet.
    """
    for wait in list(_held_up):
        if wait.overdue or even_in_grace:
            wait.thread.scheduler.post(wait.leave)


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
        self._dispose = dispose
        self._when_over = when_over
        self._phase = Phase.QUEUED
        self._wanted_by = 0
        self._waiting = WaitQueue()

    def __repr__(self) -> str:
        return f"<call of {_name_of(self.function)} {self._phase.value}{' abandoned' if self.abandoned else ''}>"

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
            start_error.add_note(f"no OS thread could be started to call {_name_of(self.function)}")
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


def _name_of(function: Callable[..., Any]) -> str:
    # Not its repr: that is the user's code, and may fail.
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
            raise RuntimeError(f"the interpreter is ending; {_name_of(call.function)} was not called")
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
            start_new_thread(_Worker(self, call).live, ())
        except BaseException:
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


def _no_more_os_threads() -> bool:
    return _pool.closed or sys.is_finalizing()


def _forget_pool() -> None:
    """In the child of a fork: the OS threads are not there, nor the calls that they made."""
    global _pool
    _pool = _Pool()
    _held_up.clear()
    for limiter in list(_limiters):
        limiter.permits = Semaphore(limiter.tokens)


def _abandoned_calls(scheduler: Scheduler) -> bool:
    """Whether an abandoned call of the user's could still unpark somebody."""
    return any(call.users_own and call.abandoned for call in list(_pool.calls_under_way))


after_fork_hooks.append(_forget_pool)
outside_sources.append(_abandoned_calls)


# --- waiting


def wait_or_leave(thread: VirtualThread, call: Call, cancel: Callable[[], object] | None = None) -> None:
    """Wait until `call`, whose outcome is wanted, is over; what ends the wait earlier leaves it."""
    scheduler = thread.scheduler
    scheduler.outside += 1
    try:
        call.park(thread, thread.park)
    except BaseException:
        _leave(call, cancel)
        raise
    finally:
        scheduler.outside -= 1


def _leave(call: Call, cancel: Callable[[], object] | None) -> None:
    if call.leave() and cancel is not None:
        _call_off(call, cancel)


def _wait_through(thread: VirtualThread, call: Call, cancel: Callable[[], object] | None) -> bool:
    """Wait until `call` is over, also when cancelled meanwhile; tell whether that was the case.

    Raises `Cancelled` only if the call never began, and interrupts; these abandon it.
    """
    cleaning_up = thread.innermost._affected_by is not None
    scheduler = thread.scheduler
    scheduler.outside += 1
    try:
        try:
            call.park(thread, thread.park)
            return False
        except Cancelled:
            if call.withdraw():
                raise
            overdue_at = thread.grace_until()
        if not cleaning_up:
            # Kept back, it was not delivered: the cleanup after the call has its full grace.
            _forget_delivery(thread)
        if cancel is not None and not call.is_over:
            _call_off(call, cancel)
            cancel = None
        _wait_held_up(thread, call, overdue_at)
        return True
    except BaseException:
        _leave(call, cancel)
        raise
    finally:
        scheduler.outside -= 1


def _forget_delivery(thread: VirtualThread) -> None:
    node = thread.innermost._affected_by
    if node is not None:
        thread.forget_delivery(node)


class _HeldUp:
    """A cancelled thread that waits for its call. Timer owner: the cleanup grace is over."""

    def __init__(self, thread: VirtualThread, call: Call) -> None:
        self.thread = thread
        self.call = call
        self.overdue = False
        self.leaves = False

    def expire(self) -> None:
        self.overdue = True
        self.call.unpark_early(self.thread)

    def leave(self) -> None:
        if self in _held_up:
            self.leaves = True
            self.call.unpark_early(self.thread)


_held_up: dict[_HeldUp, None] = {}


def _wait_held_up(thread: VirtualThread, call: Call, overdue_at: float) -> None:
    """Wait until `call` is over; only an interrupt, or being told to leave it, ends the wait earlier."""
    wait = _HeldUp(thread, call)
    reported = False
    timers = thread.scheduler.timers
    timer = timers.add(max(overdue_at, thread.scheduler.clock.now()), wait)
    _held_up[wait] = None
    try:
        while not call.park(thread, thread.park_for_interrupts):
            if wait.overdue and not reported:
                reported = True
                _report(thread, call)
            if wait.leaves:
                # Raises `Cancelled`, unless a shield has been put around the thread meanwhile.
                wait.leaves = False
                thread.check()
    finally:
        timers.cancel(timer)
        del _held_up[wait]


def _prefer_cancelled(thread: VirtualThread, call: Call) -> None:
    """Raise the pending `Cancelled` if `call` failed: it was made to, and its exception says nothing."""
    if call.error is None:
        return
    try:
        thread.check()
    except Cancelled as cancelled:
        raise cancelled from call.error


def _call_off(call: Call, cancel: Callable[[], object]) -> None:
    """Have `cancel()` called on another OS thread, whatever tokens are left: it is to free one."""
    calling_off = Call(None, call.clock, cancel, context=copy_context())
    calling_off.start()
    calling_off.leave()


def _result_of(call: Call) -> Any:
    """Return or raise the outcome of a call that is over."""
    error = call.error
    if error is None:
        return call.value
    if isinstance(error, Cancelled):
        # Not the cancellation of the thread that asks, which no scope of its own would absorb.
        raise CancelledError(f"the offloaded call of {_name_of(call.function)} was cancelled: {error}") from error
    try:
        raise error
    finally:
        # The exception refers to this frame; without the cycle it goes when the caller lets go of it.
        call.error = None
        del error


# --- telling that a call holds up a cancellation


def _report(thread: VirtualThread, call: Call) -> None:
    node = thread.innermost._affected_by
    reason = None if node is None else node._cancel_reason
    lines = [f"vthreads: {thread.name!r} is cancelled ({reason or 'no reason was given'}), but "]
    lines += [f"still waits for the offloaded call of {_name_of(call.function)}; Ctrl-C leaves the call behind.\n"]
    for failure in _failures_held_up(thread):
        lines += ["This waits behind it:\n", *traceback.format_exception(failure)]
    try:
        with deferred_delivery():
            sys.stderr.write("".join(lines))
            sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        # Closed or broken: there is nowhere left to say so.
        pass


def _failures_held_up(thread: VirtualThread) -> list[BaseException]:
    """Collect what cannot come out before `thread` goes on: what it handles, and the failures of the groups around."""
    failures: dict[int, BaseException] = {}
    handled = sys.exc_info()[1]
    if handled is not None and not isinstance(handled, Cancelled):
        failures[id(handled)] = handled
    node: CancelNode | None = thread.innermost
    while node is not None:
        if isinstance(node, CancelScope) and node.group is not None:
            failures.update((id(failure), failure) for failure, _ in node.group._failures)
        node = node._parent
    return list(failures.values())
