"""psycopg_pool: a cancelled waiter must not be given a connection that nobody takes.

Its asyncio variant counts a cancellation among the exceptions that end a client's wait, the other one only `Exception`.
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
    """Fit `psycopg_pool.pool`; what takes it back."""
    module: Any = pool
    known = module.CLIENT_EXCEPTIONS
    client = module.WaitingClient
    original = client.wait
    module.CLIENT_EXCEPTIONS = (*(known if isinstance(known, tuple) else (known,)), Cancelled)
    client.wait = _giving_up_its_place(original)
    return [partial(setattr, module, "CLIENT_EXCEPTIONS", known), partial(setattr, client, "wait", original)]


def _giving_up_its_place(original: Callable[..., Any]) -> Callable[..., Any]:
    """`WaitingClient.wait`, for a cancellation that comes before it waits, at its own lock."""

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
