"""psycopg 3 (3.2 or newer): its C code waits for the server, so it is given functions that park.

Both functions are attributes of `psycopg.waiting` that psycopg looks up at each call. On a virtual thread they are
psycopg's own loops over `select`, which parks. A cancellation or interrupt is to psycopg what Ctrl-C is: it sends a
cancel request to the server and takes what the query answers, for which there is the cleanup grace, or closes the
connection.

Older versions stay as they are, and pin the carrier. So does a host name in the connection string, which is looked up
in C.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

from .._core.current import running
from ..errors import Cancelled, Interrupted

__all__ = ["fit"]


def fit(connection: ModuleType) -> list[Callable[[], None]]:
    """Fit `psycopg.connection` and `psycopg.waiting`; what takes it back."""
    waiting: Any = connection.waiting
    if not hasattr(connection, "_INTERRUPTED"):
        return []
    undo: list[Callable[[], None]] = []
    for holder, name, new in [
        (waiting, "wait", _Wait(waiting.wait, waiting.wait_poll)),
        (waiting, "wait_conn", _WaitConnection(waiting.wait_conn)),
        (connection, "_INTERRUPTED", _with_ours(connection._INTERRUPTED)),
    ]:
        undo.append(partial(setattr, holder, name, getattr(holder, name)))
        setattr(holder, name, new)
    return undo


def _with_ours(interruptions: Any) -> tuple[type[BaseException], ...]:
    """What makes psycopg cancel its query: one class in 3.2, a tuple since."""
    return (*(interruptions if isinstance(interruptions, tuple) else (interruptions,)), Cancelled, Interrupted)


class _Wait:
    """`psycopg.waiting.wait`. A checkpoint: the query is sent only after it."""

    def __init__(self, original: Callable[..., Any], parking: Callable[..., Any]) -> None:
        self._original = original
        # Wakes up once an interval as psycopg does, by which it hears of a descriptor that libpq has closed.
        self._parking = parking

    def __call__(self, gen: Any, fileno: int, *args: Any, **options: Any) -> Any:
        thread = running()
        if thread is None:
            return self._original(gen, fileno, *args, **options)
        thread.check()
        return self._parking(gen, fileno, *args, **options)


class _WaitConnection:
    """`psycopg.waiting.wait_conn`. A checkpoint."""

    def __init__(self, original: Callable[..., Any]) -> None:
        self._original = original

    def __call__(self, gen: Any, *args: Any, **options: Any) -> Any:
        thread = running()
        if thread is None:
            return self._original(gen, *args, **options)
        thread.check()
        try:
            return self._original(gen, *args, **options)
        finally:
            # It holds the half-made connection, which else stays open until the traceback is gone.
            gen.close()
