"""The start of the runtime by first use: makes a plain OS thread a carrier when a scope or a group is entered on it.

Only `runtime` can do that, and it is a layer above. It hands its function over here when it is imported.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .engine import running

__all__ = ["own_runtime", "set_starter", "started_here"]


def _no_starter() -> Any:
    raise RuntimeError("the runtime is not there yet: import vthreads before using its parts")


_starter: Callable[[], Any] = _no_starter


def set_starter(starter: Callable[[], Any]) -> None:
    """Call `starter` from now on to make an OS thread a carrier; it returns the root thread."""
    global _starter
    _starter = starter


def started_here() -> Any:
    """Return the virtual thread that runs here; make a plain OS thread a carrier first, with its code as the root."""
    thread = running()
    return _starter() if thread is None else own_runtime(thread)


def own_runtime(thread: Any) -> Any:
    """Return `thread`, which runs here. In the child of a fork, first give it the runtime of the child.

    A fork handler of another module may run in the child before that of the core. Its threads must not belong to
    the runtime of the parent.
    """
    if thread is not None and thread._scheduler.when_forking is not None:
        thread._scheduler.when_forking()
    return thread
