"""Make blocking calls on OS threads, while only the virtual thread that needs the result waits.

An OS thread cannot be stopped. So if the waiter is cancelled, the call continues, and the caller chooses whether the
waiter waits for it or abandons it.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any, Literal, ParamSpec, TypeVar

from .._core.arguments import check_function
from .._core.contexts import inherited_context
from .._core.current import started_here
from .._core.exceptions import without_cancelled
from .._core.thread import VirtualThread
from ..errors import Cancelled
from .calls import Call, Limiter, name_of
from .held_up import wait_held_up
from .pool import no_more_os_threads

__all__ = ["offload", "offload_abandonable", "wait_or_leave"]

P = ParamSpec("P")
T = TypeVar("T")

default_limiter = Limiter("default", 64)


# --- public


def offload(
    fn: Callable[..., T],
    /,
    *args: Any,
    on_cancel: Literal["wait", "abandon"] = "wait",
    cancel: Callable[[], object] | None = None,
    **kwargs: Any,
) -> T:
    """Call `fn(*args, **kwargs)` on an OS thread; only this virtual thread waits. A checkpoint; starts the runtime.

    The call gets a copy of the caller's contextvars. At most 64 calls run at the same time; further calls queue. If
    `Cancelled` is raised before the call has begun, `fn` was not called.

    An interrupt (such as Ctrl-C) abandons the call, whatever `on_cancel` is. While the interpreter shuts down and no OS
    thread can be started any more, the call runs on the calling thread.

    Args:
        fn: the function to call. If it has keywords named `on_cancel` or `cancel`, use `functools.partial`.
        on_cancel: effect of a cancellation once the call has begun. "wait": wait for the call, then return its result
            or raise its exception; `Cancelled` is raised at the next checkpoint. If the call is still running after the
            cleanup grace, one report on stderr names it and the failures that it delays. "abandon": raise `Cancelled`
            at once, and drop the later result or exception of the call.
        cancel: a function that makes the call return (`connection.cancel`, `sqlite3.Connection.interrupt`). A
            cancellation calls it once, on another OS thread. Then the call is waited for as with "wait", but an
            exception of the call is replaced by `Cancelled`. With "abandon" it is called too, without waiting.

    Returns:
        The result of `fn`.

    Raises:
        BaseException: any exception of `fn`.
        concurrent.futures.CancelledError: `fn` ended with a `Cancelled` of a runtime that it had started itself.
        TypeError: calling `fn` would have no effect: it is not callable, or a coroutine or generator function.
        RuntimeError: no OS thread could be started.
        ValueError: `on_cancel` is neither "wait" nor "abandon".
    """
    check_function(fn, "offload")
    if on_cancel not in ("wait", "abandon"):
        raise ValueError(f'on_cancel={on_cancel!r}: pass "wait" or "abandon"')
    if no_more_os_threads():
        return fn(*args, **kwargs)
    thread = started_here()
    thread._check()
    call = Call(default_limiter, thread._scheduler.clock, fn, args, kwargs, context=inherited_context())
    call.start()
    if on_cancel == "abandon":
        wait_or_leave(thread, call, cancel)
    elif _wait_through(thread, call, cancel) and cancel is not None:
        _prefer_cancelled(thread, call)
    return _result_of(call)  # type: ignore[no-any-return]  # the result of `fn`


def offload_abandonable(
    limiter: Limiter, fn: Callable[P, T], dispose: Callable[[T], object] | None, /, *args: P.args, **kwargs: P.kwargs
) -> T:
    """`offload` for calls of the runtime: with their own limiter, and abandoned when cancelled.

    Args:
        limiter: limits how many calls of this kind run at the same time.
        fn: the function to call; it does not get the caller's contextvars.
        dispose: called with a result that came after the call was abandoned, on any OS thread. For example, it closes
            the descriptor that was opened. If it blocked, it would stop a carrier or keep the permit of the call.
    """
    if no_more_os_threads():
        return fn(*args, **kwargs)
    thread = started_here()
    thread._check()
    call = Call(limiter, thread._scheduler.clock, fn, args, kwargs, dispose=dispose)
    call.start()
    wait_or_leave(thread, call)
    return _result_of(call)  # type: ignore[no-any-return]  # the result of `fn`


# --- waiting


def wait_or_leave(thread: VirtualThread, call: Call, cancel: Callable[[], object] | None = None) -> None:
    """Wait until `call` is over; if a cancellation or interrupt ends the wait, abandon the call."""
    scheduler = thread._scheduler
    scheduler.outside += 1
    try:
        call.park(thread, thread._park)
    except BaseException:
        # No function can be stopped on an OS thread, so it goes on there without a waiter.
        _leave(call, cancel)
        raise
    finally:
        scheduler.outside -= 1


def _leave(call: Call, cancel: Callable[[], object] | None) -> None:
    if call.leave() and cancel is not None:
        _call_off(call, cancel)


def _wait_through(thread: VirtualThread, call: Call, cancel: Callable[[], object] | None) -> bool:
    """Wait until `call` is over, even if cancelled during the wait; return whether it was.

    Raises `Cancelled` only if the call never began. An interrupt is raised at once and abandons the call.
    """
    cleaning_up = thread._is_in_cleanup()
    scheduler = thread._scheduler
    scheduler.outside += 1
    try:
        try:
            call.park(thread, thread._park)
            return False
        except Cancelled:
            if call.withdraw():
                raise
            overdue_at = thread._grace_until()
        if not cleaning_up:
            # This `Cancelled` is swallowed here, so do not count it as delivered: the cleanup after the call must get
            # the full grace.
            _forget_delivery(thread)
        if cancel is not None and not call.is_over:
            _call_off(call, cancel)
            cancel = None
        wait_held_up(thread, call, overdue_at)
        return True
    except BaseException:
        # An interrupt, or the end of the cleanup grace. The function goes on without a waiter.
        _leave(call, cancel)
        raise
    finally:
        scheduler.outside -= 1


def _forget_delivery(thread: VirtualThread) -> None:
    node = thread._innermost._affected_by
    if node is not None:
        thread._forget_delivery(node)


def _prefer_cancelled(thread: VirtualThread, call: Call) -> None:
    """Raise the pending `Cancelled` if `call` failed: `cancel` made it fail, so its exception is of no interest."""
    if call.error is None:
        return
    try:
        thread._check()
    except Cancelled as cancelled:
        raise cancelled from call.error


def _call_off(call: Call, cancel: Callable[[], object]) -> None:
    """Call `cancel()` on another OS thread, without a permit: if none is left, `cancel` is what frees one."""
    calling_off = Call(None, call.clock, cancel, context=inherited_context())
    calling_off.start()
    calling_off.leave()


def _result_of(call: Call) -> Any:
    """Return the result of a call that is over, or raise its exception."""
    error = call.error
    if error is None:
        return call.value
    failure = without_cancelled(error)
    if failure is None:
        # This `Cancelled` belongs to a runtime inside the call. No scope of the waiter would catch it, so convert it.
        raise CancelledError(f"the offloaded call of {name_of(call.function)} was cancelled: {error}") from error
    try:
        raise failure
    finally:
        # The exception refers to this frame. Break the cycle, so that it is freed without the garbage collector.
        call.error = None
        del error, failure
