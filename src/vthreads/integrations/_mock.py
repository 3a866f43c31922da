"""unittest.mock: compiled methods are functions for it, so that a mock with `autospec=True` gets the object too."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import ModuleType

__all__ = ["fit"]


def fit(mock: ModuleType) -> list[Callable[[], None]]:
    """Add the type of the replaced methods to the types that mock handles as functions; return what undoes it."""
    original = mock.FunctionTypes
    # In the compiled engine, a replacement of a Python function may be a function of Cython.
    mock.FunctionTypes = (*original, type(threading.Event.set))  # type: ignore[attr-defined]  # not in the type stubs
    return [lambda: setattr(mock, "FunctionTypes", original)]
