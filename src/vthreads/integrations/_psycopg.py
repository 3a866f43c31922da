"""psycopg 3 (3.2 or newer): its C code waits for the server, so replace its wait functions by ones that park.

Both functions are attributes of `psycopg.waiting`, which psycopg looks up at each call. The one for queries is a loop
of this module; the one for connecting is psycopg's loop over `select`, which parks. psycopg treats a cancellation or
interrupt like Ctrl-C: it sends a cancel request to the server and waits for the end of the query, which has the cleanup
grace, or closes the connection.

Older versions are left as they are, and block the carrier. So does a host name in the connection string, which is
resolved in C.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial, update_wrapper
from math import inf
from types import ModuleType
from typing import Any, NoReturn

from .._calls.net.readiness import READ, WRITE, park_for_library, ready_now
from .._core.current import running
from .._core.thread import VirtualThread
from ..errors import Cancelled, Interrupted

__all__ = ["fit"]


def fit(connection: ModuleType) -> list[Callable[[], None]]:
    """Adapt `psycopg.connection` and `psycopg.waiting`; return the functions that undo it."""
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
    """Add our exceptions to those that make psycopg cancel its query: a class in 3.2, a tuple in later versions."""
    return (*(interruptions if isinstance(interruptions, tuple) else (interruptions,)), Cancelled, Interrupted)


class _Wait:
    """`psycopg.waiting.wait`. A checkpoint: the query is sent only after it."""

    def __init__(self, original: Callable[..., Any], errors: Any) -> None:
        # Logs, traces and dumps show the name.
        update_wrapper(self, original)
        self._original = original
        self._errors = errors

    def __call__(self, gen: Any, fileno: int, interval: float = 0.0, timeout: float | None = None) -> Any:
        thread = running()
        if thread is None:
            # Older versions have no timeout parameter and pass none.
            return self._original(gen, fileno, interval, *(() if timeout is None else (timeout,)))
        if interval is None:
            raise ValueError("psycopg checks its connection once per interval: pass a number of seconds, not None")
        thread._check()
        try:
            return self._drive(thread, gen, fileno, interval, timeout)
        except StopIteration as end:
            return end.value
        except OSError as lost:
            raise self._errors.OperationalError("connection socket closed") from lost

    def _drive(self, thread: VirtualThread, gen: Any, fileno: int, interval: float, timeout: float | None) -> NoReturn:
        """Run `gen`: it yields the directions to wait for and gets those that are ready, as READ and WRITE."""
        wanted = next(gen)
        # A socket nearly always accepts what is sent, so check that first and do not park.
        ready = ready_now(fileno, WRITE) if wanted & WRITE else 0
        if ready:
            wanted = gen.send(ready)
        now = thread._scheduler.clock.now
        deadline = inf if timeout is None else now() + timeout
        while True:
            patience = interval if deadline == inf else max(0.0, min(interval, deadline - now()))
            if park_for_library(thread, fileno, wanted, patience):
                wanted = gen.send(ready_now(fileno, wanted) if wanted == READ | WRITE else wanted)
            else:
                # Once per interval, as psycopg does: nothing reports that libpq has closed the descriptor.
                os.fstat(fileno)
                gen.send(0)
            thread._check()
            if now() >= deadline:
                raise self._errors._WaitTimeout("wait timeout expired")


class _WaitConnection:
    """`psycopg.waiting.wait_conn`. A checkpoint."""

    def __init__(self, original: Callable[..., Any]) -> None:
        update_wrapper(self, original)
        self._original = original

    def __call__(self, gen: Any, *args: Any, **options: Any) -> Any:
        thread = running()
        if thread is None:
            return self._original(gen, *args, **options)
        thread._check()
        try:
            return self._original(gen, *args, **options)
        finally:
            # The generator holds the half-open connection; without this it stays open as long as the traceback lives.
            gen.close()
