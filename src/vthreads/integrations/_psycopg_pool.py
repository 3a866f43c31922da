"""psycopg_pool: the pool must not give a connection to a waiter that was cancelled.

Its asyncio variant counts a cancellation among the exceptions that end a client's wait; the threading variant counts
only `Exception`, and `Cancelled` is a `BaseException`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

from .._core.delivery import deferred_delivery
from ..errors import Cancelled, Interrupted

__all__ = ["fit"]


def fit(pool: ModuleType) -> list[Callable[[], None]]:
    """Adapt `psycopg_pool.pool`; return the functions that undo it."""
    module: Any = pool
    known = module.CLIENT_EXCEPTIONS
    client = module.WaitingClient
    original = client.wait
    module.CLIENT_EXCEPTIONS = (*(known if isinstance(known, tuple) else (known,)), Cancelled)
    client.wait = _giving_up_its_place(original)
    return [partial(setattr, module, "CLIENT_EXCEPTIONS", known), partial(setattr, client, "wait", original)]


def _giving_up_its_place(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap `WaitingClient.wait` for a cancellation before its wait, while it acquires its own lock."""

    @functools.wraps(original)
    def wait(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return original(self, *args, **kwargs)
        except (Cancelled, Interrupted) as error:
            with deferred_delivery(), self._cond:
                if self.conn is None and self.error is None:
                    self.error = error
            raise

    return wait
