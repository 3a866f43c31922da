"""Run thunks together: `gather`, `race` and `first_completed`, each a group and a few lines."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import TypeVar

from ._core.current import running
from ._core.group import ThreadGroup

__all__ = ["first_completed", "gather", "race"]

T = TypeVar("T")


def gather(*thunks: Callable[[], T]) -> list[T]:
    """Call all thunks at once, each in a virtual thread, and return their results in order. A checkpoint.

    The first failure cancels the others. Starts the runtime.

    Raises:
        ExceptionGroup: the failures, even if there is but one.
    """
    with ThreadGroup("gather") as group:
        futures = [group.spawn(thunk) for thunk in thunks]
    return [future.result() for future in futures]


def race(*thunks: Callable[[], T]) -> T:
    """Call all thunks at once; the first that succeeds wins, and the others are cancelled. A checkpoint.

    Returns when all have ended. The failures of those that lost are dropped. Starts the runtime.

    Returns:
        What the winner returned.

    Raises:
        ExceptionGroup: all failed.
        concurrent.futures.CancelledError: none succeeded or failed, since all were cancelled one by one.
        ValueError: there is no thunk.
    """
    outcomes = _contest("race", thunks, until_success=True)
    for value, error in outcomes:
        if error is None:
            return value  # type: ignore[return-value]  # the value of a thunk that succeeded
    errors = [error for _, error in outcomes if error is not None]
    try:
        raise ExceptionGroup(f"none of the {len(thunks)} thunks of race() succeeded", errors)
    finally:
        # The traceback refers to this frame; without the cycle all of it goes when the caller lets go of it.
        del outcomes, errors


def first_completed(*thunks: Callable[[], T]) -> T:
    """Call all thunks at once; the outcome is that of the first to end, and the others are cancelled. A checkpoint.

    Returns when all have ended. What becomes of the others is dropped. Starts the runtime.

    Returns:
        What the first to end returned.

    Raises:
        Exception: whatever the first to end raised.
        concurrent.futures.CancelledError: none succeeded or failed, since all were cancelled one by one.
        ValueError: there is no thunk.
    """
    value, error = _contest("first_completed", thunks, until_success=False)[0]
    if error is None:
        return value  # type: ignore[return-value]  # the value of a thunk that succeeded
    try:
        raise error
    finally:
        # As above.
        del error


def _contest(
    name: str, thunks: tuple[Callable[[], T], ...], *, until_success: bool
) -> list[tuple[T | None, Exception | None]]:
    """Run `thunks` until one has won; the outcomes up to that, in the order in which they came."""
    if not thunks:
        raise ValueError(f"{name}() needs at least one thunk")
    outcomes: list[tuple[T | None, Exception | None]] = []

    def contend(thunk: Callable[[], T]) -> None:
        outcome = _outcome_of(thunk)
        if not won():
            outcomes.append(outcome)
        if won():
            group.cancel(f"another thunk of {name}() came first")

    def won() -> bool:
        return bool(outcomes) and not (until_success and outcomes[-1][1] is not None)

    with ThreadGroup(name) as group:
        for thunk in thunks:
            group.spawn(contend, thunk)
    if not outcomes:
        raise CancelledError(f"every thunk of {name}() was cancelled")
    return outcomes


def _outcome_of(thunk: Callable[[], T]) -> tuple[T | None, Exception | None]:
    try:
        return thunk(), None
    except Exception as error:  # noqa: BLE001  # an outcome; whoever asked for it raises it
        thread = running()
        if thread is not None:
            thread.note_sites(error)
        return None, error
