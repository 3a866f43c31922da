"""Clients with their own function to create a socket, which closes the socket after an `OSError` only.

A cancellation leaves the socket open, and its traceback may keep the socket alive for long. So close it here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

from .._calls.net.socket import close_local

__all__ = ["FUNCTIONS", "fit"]

# The functions by module; their local variable `sock` holds the socket.
FUNCTIONS: dict[str, list[str]] = {
    "pymongo.pool_shared": ["_create_connection"],
    "redis.connection": ["Connection._connect", "UnixDomainSocketConnection._connect"],
    "urllib3.util.connection": ["create_connection"],
}


def fit(module: ModuleType) -> list[Callable[[], None]]:
    """Adapt one of the modules; return the functions that undo it. Skips functions that this version does not have."""
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
            # Most often `Cancelled`. The original closes its socket only after an `OSError`.
            close_local(error, original, "sock")
            raise

    return connect
