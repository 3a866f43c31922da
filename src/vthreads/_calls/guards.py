"""Wrap standard library methods that are built on locks, so that they follow the rules of checkpoints.

The methods stay the standard library's own code. The wrappers add two rules: a call that may wait begins with a
checkpoint; a call that returns something, or does not wait, never raises a cancellation, even if an inner lock parks.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from .._core.current import running

__all__ = ["checking_first", "checking_if_blocking", "never_raising", "refusing_nan", "shielded"]

Call = Callable[..., Any]


def never_raising(function: Call) -> Call:
    """Wrap `function` so that delivery is deferred: a cancellation cannot make it lose what it gives back."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        thread = running()
        if thread is None or thread._deferred:
            return function(*args, **kwargs)
        # The same as `deferred_delivery`, without the two calls of a `with`: queues and conditions call this often.
        thread._deferred += 1
        try:
            return function(*args, **kwargs)
        finally:
            thread._deferred -= 1

    return call


def checking_first(function: Call) -> Call:
    """Wrap `function` so that it begins with a checkpoint: if cancelled, it raises before it changes anything."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        thread = running()
        if thread is not None:
            thread._check()
        return function(*args, **kwargs)

    return call


def refusing_nan(function: Call) -> Call:
    """Wrap a method with the argument `timeout` like `checking_first`, and refuse NaN, as the original locks do.

    The original waits for no time then. But calls that wait in a loop until a time is reached, such as those of queues,
    would never end, because NaN compares as false with every time.
    """
    checked = checking_first(function)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        timeout = args[1] if len(args) > 1 else kwargs.get("timeout")
        if timeout is not None and timeout != timeout:
            raise ValueError(f"timeout={timeout!r} is not a time; give seconds as a number, or None for no limit")
        return checked(*args, **kwargs)

    return call


def checking_if_blocking(
    position: int, name: str, can_wait: Callable[[Any], bool] | None = None
) -> Callable[[Call], Call]:
    """Wrap a method whose argument `name`, at `position`, decides whether it waits: with one of the two rules above.

    Args:
        position, name: of the argument; self is at position 0.
        can_wait: called with the object; false means that this call will not wait. None means that it may always wait.
    """

    def wrap(function: Call) -> Call:
        not_raising = never_raising(function)

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            thread = running()
            if thread is None:
                return function(*args, **kwargs)
            if args[position] if len(args) > position else kwargs.get(name, True):
                if can_wait is None or can_wait(args[0]):
                    thread._check()
                    return function(*args, **kwargs)
                thread._give_way()
            return not_raising(*args, **kwargs)

        return call

    return wrap


def shielded(function: Call) -> Call:
    """Wrap `function` so that it begins with a checkpoint and has no other: it cannot be undone half-way."""
    return checking_first(never_raising(function))
