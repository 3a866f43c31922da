"""Blocking calls on OS threads, while only the virtual thread that wants the result waits.

An OS thread cannot be stopped: what a cancelled waiter does with a call that goes on is the choice of the caller.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from concurrent.futures import CancelledError
from contextvars import copy_context
from typing import Any, Literal, ParamSpec, TypeVar

from ._core.cancel import CancelNode, CancelScope
from ._core.current import started_here
from ._core.delivery import deferred_delivery
from ._core.runtime import after_fork_hooks
from ._core.thread import VirtualThread
from .errors import Cancelled
from .os_calls import Call, Limiter, name_of, no_more_os_threads

__all__ = ["leave_calls_behind", "offload", "offload_abandonable", "wait_or_leave"]

P = ParamSpec("P")
T = TypeVar("T")

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
    if no_more_os_threads():
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
    if no_more_os_threads():
        return fn(*args, **kwargs)
    thread = started_here()
    thread.check()
    call = Call(limiter, thread.scheduler.clock, fn, args, kwargs, dispose=dispose)
    call.start()
    wait_or_leave(thread, call)
    return _result_of(call)  # type: ignore[no-any-return]  # what `fn` returned


def leave_calls_behind(*, even_in_grace: bool = False) -> None:
    """Let cancelled threads that still wait for their call abandon it. Not a checkpoint; thread- and signal-safe.

    For Ctrl-C: the thread that is held up need not be the one that `KeyboardInterrupt` is raised in.

    Args:
        even_in_grace: also those whose cleanup grace is not over yet.
    """
    for wait in list(_held_up):
        if wait.overdue or even_in_grace:
            wait.thread.scheduler.post(wait.leave)


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
# In the child of a fork they are not there.
after_fork_hooks.append(_held_up.clear)


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
        raise CancelledError(f"the offloaded call of {name_of(call.function)} was cancelled: {error}") from error
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
    lines += [f"still waits for the offloaded call of {name_of(call.function)}; Ctrl-C leaves the call behind.\n"]
    try:
        # Formatting reads source files, and calls code of the user's.
        with deferred_delivery():
            for failure in _failures_held_up(thread):
                lines += ["This waits behind it:\n", *traceback.format_exception(failure)]
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
