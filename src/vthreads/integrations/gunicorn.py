"""gunicorn: a worker whose requests run on virtual threads, with the HTTP server of `vthreads.serve`.

    gunicorn -k vthreads.integrations.gunicorn.Worker shop.site:app

gunicorn keeps its master process: it forks and replaces workers, and handles their signals.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._core.on_demand import ModuleOnDemand

if TYPE_CHECKING:
    Worker: Any

__all__ = ["Worker"]

# The server is above this layer, and it needs gunicorn.
_implementation = ModuleOnDemand("vthreads.serve._gunicorn")


def __getattr__(name: str) -> Any:
    if name == "Worker":
        return _implementation.Worker
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
