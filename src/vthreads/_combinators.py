"""Run functions together: `gather`, `race` and `first_completed`, each a group and a few lines."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any, Literal, TypeVar, overload

from ._core.arguments import check_function
from ._core.current import running
from ._core.exceptions import is_a, without_cancelled
from ._core.future import Future
from ._core.group import ThreadGroup
from ._core.replaced import latest

__all__ = ["first_completed", "gather", "race", "value_or_error"]

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
T = TypeVar("T")


# Overloads for functions of different types: a type checker would infer only `object` as their common type.
@overload
def gather(a: Callable[[], A], b: Callable[[], B], /, *, return_exceptions: Literal[False] = False) -> list[A | B]: ...


@overload
def gather(
    a: Callable[[], A], b: Callable[[], B], c: Callable[[], C], /, *, return_exceptions: Literal[False] = False
) -> list[A | B | C]: ...


@overload
def gather(
    a: Callable[[], A], b: Callable[[], B], /, *, return_exceptions: Literal[True]
) -> list[A | B | Exception]: ...


@overload
def gather(
    a: Callable[[], A], b: Callable[[], B], c: Callable[[], C], /, *, return_exceptions: Literal[True]
) -> list[A | B | C | Exception]: ...


@overload
def gather(*thunks: Callable[[], T], return_exceptions: Literal[False] = False) -> list[T]: ...


@overload
def gather(*thunks: Callable[[], T], return_exceptions: bool) -> list[T | Exception]: ...


def gather(*thunks: Callable[[], Any], return_exceptions: bool = False) -> list[Any]:
    """Call all thunks concurrently, each in a virtual thread; return their results in order. A checkpoint.

    The first failure cancels the others, unless exceptions are returned. Starts the runtime.

    Args:
        thunks: functions without arguments. In a loop use `functools.partial(fn, value)`: a lambda reads the variable
            of the loop when it is called, after the loop.
        return_exceptions: put an `Exception` that a thunk raised at its place in the list, and a
            `concurrent.futures.CancelledError` for a thunk that was cancelled individually; the others continue.

    Raises:
        TypeError: calling a thunk would have no effect, as in `gather([f, g])`; no thunk was called.
        ExceptionGroup: the failures, even if there is only one.
    """
    _check("gather", thunks)
    with ThreadGroup("gather") as group:
        if return_exceptions:
            futures = [group.spawn(value_or_error, thunk) for thunk in thunks]
        else:
            futures = [group.spawn(thunk) for thunk in thunks]
    return [_value_or_error_of(future) if return_exceptions else future.result() for future in futures]


def race(*thunks: Callable[[], T]) -> T:
    """Call all thunks concurrently; the first that succeeds wins, and the others are cancelled. A checkpoint.

    Returns when all have ended. Results and failures of the others are dropped, so do not pass a call that takes
    something, such as `queue.get`: it may have its item already when another thunk ends first. Use `receive_any`, or a
    queue that is shut down. Starts the runtime.

    Returns:
        The result of the winner.

    Raises:
        ExceptionGroup: all thunks failed.
        concurrent.futures.CancelledError: all thunks were cancelled individually.
        TypeError: calling a thunk would have no effect; no thunk was called.
        ValueError: called without a thunk.
    """
    outcomes = _outcomes_until_first("race", thunks, until_success=True)
    for value, error in outcomes:
        if error is None:
            return value  # type: ignore[return-value]  # the value of a thunk that succeeded
    errors = [error for _, error in outcomes if error is not None]
    try:
        raise ExceptionGroup(f"none of the {len(thunks)} thunks of race() succeeded", errors)
    finally:
        # The traceback refers to this frame. Break the cycle, so that it is freed without the garbage collector.
        del outcomes, errors


def first_completed(*thunks: Callable[[], T]) -> T:
    """Call all thunks concurrently; return or raise the outcome of the first that ends, and cancel the others.

    A checkpoint. Returns when all have ended. Outcomes of the others are dropped. Starts the runtime.

    Returns:
        The result of the first thunk that ended.

    Raises:
        Exception: the exception of the first thunk that ended.
        concurrent.futures.CancelledError: all thunks were cancelled individually.
        TypeError: calling a thunk would have no effect; no thunk was called.
        ValueError: called without a thunk.
    """
    value, error = _outcomes_until_first("first_completed", thunks, until_success=False)[0]
    if error is None:
        return value  # type: ignore[return-value]  # the value of a thunk that succeeded
    try:
        raise error
    finally:
        # Break the cycle, as in `race`.
        del error


def _check(name: str, thunks: tuple[Callable[[], T], ...]) -> None:
    # Check all thunks before the first is called.
    for thunk in thunks:
        check_function(thunk, name)


def _outcomes_until_first(
    name: str, thunks: tuple[Callable[[], T], ...], *, until_success: bool
) -> list[tuple[T | None, Exception | None]]:
    """Run `thunks` until one has ended, or succeeded; return the outcomes up to then, in order of their ends."""
    if not thunks:
        raise ValueError(f"{name}() was called without a thunk; pass at least one")
    _check(name, thunks)
    outcomes: list[tuple[T | None, Exception | None]] = []

    def run_one(thunk: Callable[[], T]) -> None:
        outcome = _outcome_of(thunk)
        if not is_over():
            outcomes.append(outcome)
        # The traceback of a failure refers to this frame, so drop the reference that would close the cycle.
        del outcome
        if is_over():
            group.cancel(f"another thunk of {name}() ended first")

    def is_over() -> bool:
        return bool(outcomes) and not (until_success and outcomes[-1][1] is not None)

    with ThreadGroup(name) as group:
        for thunk in thunks:
            group.spawn(run_one, thunk)
    if not outcomes:
        raise CancelledError(f"every thunk of {name}() was cancelled")
    # Return a copy and clear the list, to which the frames of `run_one` refer.
    answer = outcomes.copy()
    outcomes.clear()
    return answer


def value_or_error(fn: Callable[..., T], *args: Any) -> T | Exception:
    """Call `fn(*args)`; return its result or the `Exception` that it raised, for a thread whose failure is a value."""
    value, error = _outcome_of(fn, *args)
    try:
        return value if error is None else error  # type: ignore[return-value]  # the value of a call that succeeded
    finally:
        # The error refers to this frame. Break the cycle, so that it is freed without the garbage collector.
        del error


def _value_or_error_of(future: Future[T | Exception]) -> T | Exception:
    """Return the result of a thread that called `value_or_error`, or the CancelledError if it was cancelled."""
    try:
        return future.result()
    except CancelledError as error:
        return error
    finally:
        # The error refers to this frame. Break the cycle, so that it is freed without the garbage collector.
        del future


def _outcome_of(fn: Callable[..., T], *args: Any) -> tuple[T | None, Exception | None]:
    try:
        return latest(fn)(*args), None
    except BaseException as error:  # noqa: BLE001  # returned as an outcome, or raised again here
        failure = without_cancelled(error)
        try:
            if not is_a(failure, Exception):
                raise
            thread = running()
            if thread is not None:
                thread._note_sites(failure)
            return None, failure
        finally:
            # Break the cycle, as in `value_or_error`; and do not keep the thread and its group as long as the failure.
            failure = thread = None
