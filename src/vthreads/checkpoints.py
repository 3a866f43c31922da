"""Standard library methods that are built on locks, given the rules of checkpoints.

They stay the standard library's own code. What is added: calls that may wait begin with a checkpoint, and calls that
give something back, or do not wait, never raise a cancellation, even if an inner lock makes them park.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ._core.current import running

__all__ = ["checking_first", "checking_if_blocking", "never_raising", "shielded"]

Call = Callable[..., Any]


def never_raising(function: Call) -> Call:
    """`function` with what is pending deferred: nothing that is given back is lost."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        thread = running()
        if thread is None or thread._deferred:
            return function(*args, **kwargs)
        # As `deferred_delivery` does, without the two calls of a `with`: queues and conditions come here all the time.
        thread._deferred += 1
        try:
            return function(*args, **kwargs)
        finally:
            thread._deferred -= 1

    return call


def checking_first(function: Call) -> Call:
    """`function` behind a checkpoint: cancelled, it raises before it does anything, even if it need not wait."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        thread = running()
        if thread is not None:
            thread.check()
        return function(*args, **kwargs)

    return call


def checking_if_blocking(
    position: int, name: str, can_wait: Callable[[Any], bool] | None = None
) -> Callable[[Call], Call]:
    """For a method whose argument `name`, at `position`, says whether to wait: one or the other of the above.

    Args:
        position, name: of the argument; self is at position 0.
        can_wait: asked of the object; where there is nothing to wait for, the call does not wait. None: it always may.
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
                    thread.check()
                    return function(*args, **kwargs)
                thread.give_way()
            return not_raising(*args, **kwargs)

        return call

    return wrap


def shielded(function: Call) -> Call:
    """`function` behind a checkpoint, and with none further on: it cannot be undone in the middle."""
    return checking_first(never_raising(function))
