"""Imports that wait for the import of the same module by another thread."""

from __future__ import annotations

import sys
from importlib import _bootstrap
from typing import Any

from .._core.current import running

__all__ = ["importing", "lock_unlock_module"]

# The module whose function an `import` statement calls when it finds a module whose body still runs.
importing: Any = _bootstrap
original_lock_unlock_module = importing._lock_unlock_module


def lock_unlock_module(name: str) -> None:
    """`importlib._bootstrap._lock_unlock_module`. A checkpoint if it waits.

    The statement goes on with the module that it found. Where the body failed that is half of one, and on virtual
    threads a body fails whenever its thread is cancelled: whoever waited for it is told instead.
    """
    was_there = name in sys.modules
    original_lock_unlock_module(name)
    if was_there and name not in sys.modules and running() is not None:
        raise ImportError(
            f"module {name!r} was being imported by another thread, which failed or was cancelled; import it again",
            name=name,
        )
