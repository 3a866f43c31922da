"""Short methods of pools that a cancellation must not interrupt: the pool's count of connections would be wrong.

They wait for locks, or for a file that they read, but not for a server, so shielding them delays a cancellation little.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

from .._core.delivery import deferred_delivery

__all__ = ["METHODS", "fit"]

# The methods by module.
METHODS: dict[str, list[str]] = {
    # A connection counts in the pool before it is created.
    "redis.connection": [
        "BlockingConnectionPool.make_connection",
        "BlockingConnectionPool.release",
        "ConnectionPool.make_connection",
        "ConnectionPool.release",
    ],
    "sqlalchemy.pool.impl": ["QueuePool._do_return_conn", "QueuePool._dec_overflow"],
}


def fit(module: ModuleType) -> list[Callable[[], None]]:
    """Adapt one of the modules; return the functions that undo it. Skips methods that this version does not have."""
    undo: list[Callable[[], None]] = []
    for path in METHODS[module.__name__]:
        owner, _, name = path.partition(".")
        holder = getattr(module, owner, None)
        original = None if holder is None else vars(holder).get(name)
        if callable(original):
            setattr(holder, name, _without_delivery(original))
            undo.append(partial(setattr, holder, name, original))
    return undo


def _without_delivery(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        with deferred_delivery():
            return original(*args, **kwargs)

    return call
