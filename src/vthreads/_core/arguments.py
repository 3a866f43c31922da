"""Check arguments at the start of a call: before anything is queued, acquired or started.

A timeout that cannot be converted would otherwise raise when its caller is already in a wait queue, and NaN compares as
false with every time. A function whose call has no effect would look like one that has ended. Each check returns a
plain value or raises with a message that names the argument.
"""

from __future__ import annotations

import sys
from _thread import TIMEOUT_MAX
from concurrent.futures import Future
from functools import partial
from math import inf, isnan, nan
from operator import index
from types import CoroutineType, FunctionType, MethodType
from typing import Any

from .repeated import repeated_in

__all__ = [
    "check_function",
    "checked_count",
    "checked_period",
    "checked_seconds",
    "checked_span",
    "checked_timeout",
    "standard_time",
]

# The getter of `partial` itself: a subclass may override the access to attributes.
partial_function: Any = vars(partial)["func"].__get__

# The methods of a number that the standard library accepts as a time beside a float.
CONVERSIONS = ("__index__", "__float__") if sys.version_info >= (3, 15) else ("__index__",)

# The flags of code objects, as `inspect` has them. Importing it would double the time of this package's import.
CO_GENERATOR, CO_COROUTINE, CO_ASYNC_GENERATOR = 0x20, 0x80, 0x200

# Functions whose call only creates an object, by the flag of their code: their kind, and what to pass instead.
RUN_BY_OTHERS = {
    CO_COROUTINE: ("coroutine", "a function that calls asyncio.run"),
    CO_GENERATOR: ("generator", "a function that iterates over it"),
    CO_ASYNC_GENERATOR: ("asynchronous generator", "a function that calls asyncio.run"),
}


@repeated_in("_core/compiled/arguments.pxi")
def checked_timeout(timeout: float | None, name: str = "timeout") -> float | None:
    """Convert `timeout` to a float; None stays None.

    Raises:
        TypeError: it is not a number.
        ValueError: it is NaN, which compares as false with every time.
        OverflowError: it is an int too large for a float.
    """
    # The common cases first, because every blocking call comes here.
    if timeout is None or type(timeout) is float and timeout == timeout:
        return timeout
    try:
        is_nan = isnan(timeout)
    except TypeError:
        kind = type(timeout).__name__
        raise TypeError(f"{name} is a {kind}; give seconds as an int or a float, or None for no limit") from None
    except OverflowError:
        # Without its repr: Python refuses to convert an int of many thousand digits.
        raise OverflowError(f"{name} is too large for a number of seconds; give None for no limit") from None
    if is_nan:
        raise ValueError(f"{name}={timeout!r} is not a time; give seconds as a number, or None for no limit")
    return float(timeout)


def standard_time(time: Any, largest: float = TIMEOUT_MAX) -> float:
    """Return `time` as a float if calls of the standard library accept it; else NaN: they raise, and do not wait.

    Args:
        time: seconds, or what the call counts in.
        largest: the largest time that the call accepts.
    """
    if not isinstance(time, float) and not any(hasattr(type(time), name) for name in CONVERSIONS):
        return nan
    try:
        number = float(time)
    except Exception:  # noqa: BLE001  # raised by the original, which converts it too
        return nan
    return number if -largest <= number <= largest else nan


def checked_seconds(seconds: float | None, name: str) -> float:
    """Convert `seconds` to a float, None to `inf`. Raises the errors of `checked_timeout`."""
    seconds = checked_timeout(seconds, name)
    return inf if seconds is None else seconds


def checked_span(seconds: float, name: str, least: float = 0.0) -> float:
    """Convert `seconds` to a float of at least `least`, which may be `inf`.

    Raises:
        ValueError: it is less or NaN. Also the errors of `checked_timeout`.
    """
    number = checked_timeout(seconds, name)
    if number is None or number < least:
        raise ValueError(f"{name} must be >= {least:g} seconds, got {seconds!r}")
    return number


def checked_period(seconds: float, name: str) -> float:
    """Convert `seconds` to a finite float above 0.

    Raises:
        ValueError: it is not. Also the errors of `checked_timeout`.
    """
    number = checked_timeout(seconds, name)
    if number is None or not 0 < number < inf:
        raise ValueError(f"{name} must be > 0 seconds, got {seconds!r}")
    return number


def checked_count(count: Any, name: str, least: int) -> int:
    """Convert `count` to an int of at least `least`. A fraction would never be counted down to 0.

    Raises:
        TypeError: it is not a whole number.
        ValueError: it is less than `least`.
    """
    try:
        whole = index(count)
    except TypeError:
        raise TypeError(f"{name}={count!r} is not a whole number; give an int, {least} or more") from None
    if whole < least:
        raise ValueError(f"{name}={whole} is too small; give {least} or more")
    return whole


@repeated_in("_core/compiled/members.pxi")
def check_function(fn: Any, call: str) -> None:
    """Raise TypeError if a call of `fn` would have no effect.

    Args:
        fn: the function to call in a thread.
        call: name of the function that got it, for the message.
    """
    if not callable(fn):
        raise TypeError(f"{call}() got {fn!r}, which is not callable: {_remedy(fn, call)}")
    flags = _code_flags(fn)
    for flag, (kind, wrapper) in RUN_BY_OTHERS.items():
        if flags & flag:
            raise TypeError(
                f"{call}() got the {kind} function {fn!r}: calling it makes the {kind} and runs nothing; give {wrapper}"
            )


def _remedy(fn: Any, call: str) -> str:
    if isinstance(fn, CoroutineType):
        return f"give {RUN_BY_OTHERS[CO_COROUTINE][1]}"
    if isinstance(fn, list | tuple):
        return f"give the functions one by one, {call}(*functions)"
    if isinstance(fn, Future):
        return "give its method `result`, without calling it"
    return "give the function itself, not what a call of it returned"


def _code_flags(fn: Any) -> int:
    """Return the flags of the code that a call of `fn` runs; 0 if it is not Python code."""
    # Use the type: the object may be a lazy proxy, which would load its target at the first access.
    while type(fn) is not FunctionType:
        if issubclass(type(fn), partial):
            fn = partial_function(fn)
        elif type(fn) is MethodType:
            fn = fn.__func__
        else:
            call = type(fn).__call__
            return call.__code__.co_flags if type(call) is FunctionType else 0
    return fn.__code__.co_flags
