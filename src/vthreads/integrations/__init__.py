"""Adapt drivers and packages that wait in C, or do not handle a cancellation, beyond what patching does.

Each module here whose name begins with an underscore adapts one of them, as soon as it is imported: at the start of
patching if it is imported by then, otherwise directly after its import. Nothing in them imports one. The other modules
are for frameworks, and a program imports them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from types import ModuleType

from ._imports import watch_imports

__all__ = ["activate"]

Undo = Callable[[], None]

Fit = Callable[[ModuleType], list[Undo]]

# The modules that each module here adapts, once they are fully imported. Its function `fit` returns what undoes its
# changes. The table holds names, because a program uses few of them: each module here is imported at its first use.
FITTED_BY: dict[str, tuple[str, ...]] = {
    "_running_loop": ("asyncio.events",),
    "_thread_pools": ("concurrent.futures.thread",),
    "_mock": ("unittest.mock",),
    "_monkey_patches": ("eventlet.patcher", "gevent.monkey"),
    "_django": ("django.core.handlers.wsgi",),
    "_httpcore": ("httpcore._sync.connection_pool",),
    "_pyopenssl": ("OpenSSL.SSL",),
    "_psycopg": ("psycopg.connection",),
    "_psycopg2": ("psycopg2.extensions",),
    "_psycopg_pool": ("psycopg_pool.pool",),
    "_urllib3": ("urllib3.connectionpool",),
    "_uvloop": ("uvloop",),
    "_django_reloader": ("django.utils.autoreload",),
    "_client_sockets": ("pymongo.pool_shared", "redis.connection", "urllib3.util.connection"),
    "_shielded_calls": ("redis.connection", "sqlalchemy.pool.impl"),
    "_multiprocessing": (
        "concurrent.futures.process",
        "multiprocessing.connection",
        "multiprocessing.managers",
        "multiprocessing.pool",
        "multiprocessing.process",
        "multiprocessing.queues",
        "multiprocessing.resource_tracker",
        "multiprocessing.synchronize",
    ),
}


def _fit_by(adapter: str, module: ModuleType) -> list[Undo]:
    fit: Fit = import_module(f".{adapter}", __name__).fit
    return fit(module)


def activate() -> list[Undo]:
    """Adapt modules that are or will be imported; return functions that undo it, last first. Not a checkpoint."""
    undo: list[Undo] = []
    fits: dict[str, list[Fit]] = {}
    for adapter, names in FITTED_BY.items():
        for name in names:
            fits.setdefault(name, []).append(partial(_fit_by, adapter))

    def fit(module: ModuleType) -> None:
        for fit_one in fits[module.__name__]:
            undo.extend(fit_one(module))

    watch = watch_imports(fits.keys(), fit)
    undo.append(watch.end)
    for module in watch.present:
        fit(module)
    return [lambda: _call_last_first(undo)]


def _call_last_first(undo: list[Undo]) -> None:
    while undo:
        undo.pop()()
