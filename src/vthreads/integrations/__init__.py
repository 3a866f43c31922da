"""Drivers and packages that wait in C, or do not reckon with a cancellation: what they need besides the patch.

Each module here knows one of them, and is asked to fit it as soon as it is there: when patching begins if it has been
imported by then, otherwise right after its import. Nothing here imports one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType

from . import connecting, httpcore, multiprocessing, psycopg, psycopg2, psycopg_pool, running_loop, undisturbed, urllib3
from .imports import watch_imports

__all__ = ["activate"]

Undo = Callable[[], None]

Fit = Callable[[ModuleType], list[Undo]]

# The module of the driver, fully imported, that each fits; what it answers takes that back.
FITTED_BY: list[tuple[str, Fit]] = [
    ("asyncio.events", running_loop.fit),
    ("httpcore._sync.connection_pool", httpcore.fit),
    ("psycopg.connection", psycopg.fit),
    ("psycopg2.extensions", psycopg2.fit),
    ("psycopg_pool.pool", psycopg_pool.fit),
    ("urllib3.connectionpool", urllib3.fit),
    *[(name, connecting.fit) for name in connecting.FUNCTIONS],
    *[(name, undisturbed.fit) for name in undisturbed.METHODS],
    *multiprocessing.FITTED_BY.items(),
]


def activate() -> list[Undo]:
    """Fit what is imported, and what will be; what takes it back, to be called last first. Not a checkpoint."""
    undo: list[Undo] = []
    fits: dict[str, list[Fit]] = {}
    for name, fit_one in FITTED_BY:
        fits.setdefault(name, []).append(fit_one)

    def fit(module: ModuleType) -> None:
        # Once: what has been fitted stands no more in the table.
        for fit_one in fits.pop(module.__name__, ()):
            undo.extend(fit_one(module))

    # Watched first: another OS thread may import one of them just now.
    undo.append(watch_imports(set(fits), fit))
    for name in list(fits):
        module = sys.modules.get(name)
        if module is not None and not getattr(module.__spec__, "_initializing", False):
            fit(module)
    return [lambda: _call_last_first(undo)]


def _call_last_first(undo: list[Undo]) -> None:
    while undo:
        undo.pop()()
