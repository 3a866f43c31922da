"""Imports that wait while another thread imports the same module."""

from __future__ import annotations

import sys
from importlib import _bootstrap
from typing import Any

from .._core.current import running

__all__ = ["importing", "lock_unlock_module"]

# The module with the function that `import` calls when it finds a module whose body is still running.
importing: Any = _bootstrap
original_lock_unlock_module = importing._lock_unlock_module


def lock_unlock_module(name: str) -> None:
    """`importlib._bootstrap._lock_unlock_module`. A checkpoint if it waits.

    `import` continues with the module object that it found. If the body failed, that object is incomplete, and on
    virtual threads a body fails whenever its thread is cancelled. So raise ImportError in the threads that waited.
    """
    was_there = name in sys.modules
    original_lock_unlock_module(name)
    if was_there and name not in sys.modules and running() is not None:
        raise ImportError(
            f"module {name!r} was being imported by another thread, which failed or was cancelled; import it again",
            name=name,
        )
