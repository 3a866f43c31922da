"""Drivers and packages that wait in C, or do not reckon with a cancellation: what they need besides the patch.

Each module here knows one of them, and is asked to fit it as soon as it is there: when patching begins if it has been
imported by then, otherwise right after its import. Nothing here imports one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType

from . import connecting, httpcore, multiprocessing, psycopg, psycopg2, psycopg_pool, running_loop, urllib3
from .imports import watch_imports

__all__ = ["activate"]

Undo = Callable[[], None]

# The module of the driver, fully imported, that each fits; what it answers takes that back.
FITTED_BY: dict[str, Callable[[ModuleType], list[Undo]]] = {
    "asyncio.events": running_loop.fit,
    "httpcore._sync.connection_pool": httpcore.fit,
    "psycopg.connection": psycopg.fit,
    "psycopg2.extensions": psycopg2.fit,
    "psycopg_pool.pool": psycopg_pool.fit,
    "urllib3.connectionpool": urllib3.fit,
    **dict.fromkeys(connecting.FUNCTIONS, connecting.fit),
    **multiprocessing.FITTED_BY,
}


def activate() -> list[Undo]:
    """Fit what is imported, and what will be; what takes it back, to be called last first. Not a checkpoint."""
    undo: list[Undo] = []
    fitted: set[str] = set()

    def fit(module: ModuleType) -> None:
        if module.__name__ not in fitted:
            fitted.add(module.__name__)
            undo.extend(FITTED_BY[module.__name__](module))

    # Watched first: another OS thread may import one of them just now.
    undo.append(watch_imports(FITTED_BY, fit))
    for name in FITTED_BY:
        module = sys.modules.get(name)
        if module is not None and not getattr(module.__spec__, "_initializing", False):
            fit(module)
    return [lambda: _call_last_first(undo)]


def _call_last_first(undo: list[Undo]) -> None:
    while undo:
        undo.pop()()
