"""Clients that make their sockets in a function of their own, which closes them after an `OSError` only.

A cancellation passes, too; and what its traceback refers to may stay open for long.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

from ..net.socket import close_local

__all__ = ["FUNCTIONS", "fit"]

# By module: the functions, whose local variable `sock` holds the socket.
FUNCTIONS: dict[str, list[str]] = {
    "pymongo.pool_shared": ["_create_connection"],
    "redis.connection": ["Connection._connect", "UnixDomainSocketConnection._connect"],
    "urllib3.util.connection": ["create_connection"],
}


def fit(module: ModuleType) -> list[Callable[[], None]]:
    """Fit one of those modules; what takes it back. What another version does not have is left out."""
    undo: list[Callable[[], None]] = []
    for path in FUNCTIONS[module.__name__]:
        owner, _, name = path.rpartition(".")
        holder = getattr(module, owner, None) if owner else module
        original = vars(holder).get(name) if holder is not None else None
        if hasattr(original, "__code__"):
            setattr(holder, name, _closing(original))
            undo.append(partial(setattr, holder, name, original))
    return undo


def _closing(original: Any) -> Callable[..., Any]:
    @functools.wraps(original)
    def connect(*args: Any, **kwargs: Any) -> Any:
        try:
            return original(*args, **kwargs)
        except OSError:
            raise
        except BaseException as error:
            close_local(error, original, "sock")
            raise

    return connect
