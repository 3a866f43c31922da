"""Imports by code of the runtime that runs between two switches, where no virtual thread runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import _bootstrap
from typing import Any

from .originals import get_ident

__all__ = ["importing_between_switches"]


@contextmanager
def importing_between_switches() -> Iterator[None]:
    """A block of code that the scheduler calls and that may import; an import that would wait raises RuntimeError.

    `importlib` of Python 3.11 stores for each ident the one module that it waits for. Between two switches the ident
    is that of the OS thread, and the root has the same one. If the root waits for a module, an import here would
    delete its entry, and the wait would end with a KeyError (python/cpython#91351). So take the entry out meanwhile.
    """
    if sys.version_info >= (3, 12):
        yield
        return
    waits: dict[int, Any] = _bootstrap._blocking_on  # type: ignore[attr-defined]  # not in the type stubs
    ident = get_ident()
    of_root = waits.pop(ident, None)
    try:
        yield
    finally:
        if of_root is not None:
            waits[ident] = of_root
