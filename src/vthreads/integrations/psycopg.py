"""psycopg 3 (3.2 or newer): its C code waits for the server, so it is given functions that park.

Both functions are attributes of `psycopg.waiting` that psycopg looks up at each call. The one for queries has a loop of
its own here; the one for connecting is psycopg's loop over `select`, which parks. A cancellation or interrupt is to
psycopg what Ctrl-C is: it sends a cancel request to the server and takes what the query answers, for which there is the
cleanup grace, or closes the connection.

Older versions stay as they are, and pin the carrier. So does a host name in the connection string, which is looked up
in C.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from math import inf
from types import ModuleType
from typing import Any, NoReturn

from .._core.current import running
from .._core.thread import VirtualThread
from ..errors import Cancelled, Interrupted
from ..net.readiness import READ, WRITE, park_for_library, ready_now

__all__ = ["fit"]


def fit(connection: ModuleType) -> list[Callable[[], None]]:
    """Fit `psycopg.connection` and `psycopg.waiting`; what takes it back."""
    waiting: Any = connection.waiting
    if not hasattr(connection, "_INTERRUPTED"):
        return []
    undo: list[Callable[[], None]] = []
    for holder, name, new in [
        (waiting, "wait", _Wait(waiting.wait, connection.e)),
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

    def __init__(self, original: Callable[..., Any], errors: Any) -> None:
        self._original = original
        self._errors = errors

    def __call__(self, gen: Any, fileno: int, interval: float = 0.0, timeout: float | None = None) -> Any:
        thread = running()
        if thread is None:
            # Older versions know nothing of a timeout, and give none.
            return self._original(gen, fileno, interval, *(() if timeout is None else (timeout,)))
        if interval is None:
            raise ValueError("psycopg looks after its connection once an interval of some seconds, and got None for it")
        thread.check()
        try:
            return self._drive(thread, gen, fileno, interval, timeout)
        except StopIteration as end:
            return end.value
        except OSError as lost:
            raise self._errors.OperationalError("connection socket closed") from lost

    def _drive(self, thread: VirtualThread, gen: Any, fileno: int, interval: float, timeout: float | None) -> NoReturn:
        """Run `gen`, which yields directions to wait for and is sent those that are ready, in the numbers used here."""
        wanted = next(gen)
        # A socket nearly always takes what is sent: nobody has to park for it.
        ready = ready_now(fileno, WRITE) if wanted & WRITE else 0
        if ready:
            wanted = gen.send(ready)
        now = thread.scheduler.clock.now
        deadline = inf if timeout is None else now() + timeout
        while True:
            patience = interval if deadline == inf else max(0.0, min(interval, deadline - now()))
            if park_for_library(thread, fileno, wanted, patience):
                wanted = gen.send(ready_now(fileno, wanted) if wanted == READ | WRITE else wanted)
            else:
                # Once an interval, as psycopg does: nobody else tells that libpq has closed the descriptor.
                os.fstat(fileno)
                gen.send(0)
            thread.check()
            if now() >= deadline:
                raise self._errors._WaitTimeout("wait timeout expired")


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
