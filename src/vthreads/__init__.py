"""Virtual threads: write plain blocking Python, run very many at once, never leak one.

    from vthreads import ThreadGroup

    with ThreadGroup(max_concurrency=8) as g:
        futures = {url: g.spawn(requests.get, url) for url in urls}

Importing starts nothing and patches nothing.

PYTEST_DONT_REWRITE: this distribution contains a pytest plugin, so pytest would rewrite the asserts of this package. If
the package is imported before pytest (`python -m vthreads run -m pytest`), pytest would warn that it cannot.
"""

from __future__ import annotations

from importlib import import_module
from sys import modules
from typing import TYPE_CHECKING, Any

from . import errors
from ._calls import signals  # noqa: F401  it takes part in the start of a carrier, patched or not
from ._core import daemon_carriers, fork  # noqa: F401  so do these
from ._core.cancel import CancelScope
from ._core.future import Future
from ._core.group import ThreadGroup
from ._core.runtime import checkpoint, current_thread, now, run, spawn, stopping
from ._core.semaphore import BoundedSemaphore, Semaphore
from ._core.thread import VirtualThread
from ._event_loops import guests, hosting  # noqa: F401  and these
from ._patching import patch, unpatch
from ._timeouts import fail_after, fail_at, move_on_after, move_on_at, remaining, shield, sleep
from .debug import _triggers  # noqa: F401  this too
from .errors import (
    Cancelled,
    ChannelClosed,
    DeadlockError,
    Empty,
    Full,
    GroupClosed,
    GroupFull,
    Interrupted,
    ScopeMisuse,
    ShutDown,
)

if TYPE_CHECKING:
    from . import aio as aio
    from . import integrations as integrations
    from . import serve as serve
    from . import testing as testing
    from ._combinators import first_completed, gather, race
    from ._completion import as_completed, wait
    from ._mapping import map
    from ._os_threads.offload import offload
    from ._patching.threads import standard_threads
    from ._sync.barriers import Barrier
    from ._sync.channels import Channel, receive_any
    from ._sync.conditions import Condition
    from ._sync.events import Event
    from ._sync.local import local
    from ._sync.locks import Lock, RLock
    from ._sync.mutex import Mutex, RwLock
    from ._sync.queues import LifoQueue, PriorityQueue, Queue, SimpleQueue
    from .debug import dump, trace

    __version__: str

__all__ = [
    "Barrier",
    "BoundedSemaphore",
    "CancelScope",
    "Cancelled",
    "Channel",
    "ChannelClosed",
    "Condition",
    "DeadlockError",
    "Empty",
    "Event",
    "Full",
    "Future",
    "GroupClosed",
    "GroupFull",
    "Interrupted",
    "LifoQueue",
    "Lock",
    "Mutex",
    "PriorityQueue",
    "Queue",
    "RLock",
    "RwLock",
    "ScopeMisuse",
    "Semaphore",
    "ShutDown",
    "SimpleQueue",
    "ThreadGroup",
    "VirtualThread",
    "as_completed",
    "checkpoint",
    "current_thread",
    "dump",
    "errors",
    "fail_after",
    "fail_at",
    "first_completed",
    "gather",
    "local",
    "map",
    "move_on_after",
    "move_on_at",
    "now",
    "offload",
    "patch",
    "race",
    "receive_any",
    "remaining",
    "run",
    "shield",
    "sleep",
    "spawn",
    "standard_threads",
    "stopping",
    "trace",
    "unpatch",
    "wait",
]

# The modules of the other names. A program may use none of them, so each is imported when its first name is.
HOMES = {
    "Barrier": "_sync.barriers",
    "Channel": "_sync.channels",
    "Condition": "_sync.conditions",
    "Event": "_sync.events",
    "LifoQueue": "_sync.queues",
    "Lock": "_sync.locks",
    "Mutex": "_sync.mutex",
    "PriorityQueue": "_sync.queues",
    "Queue": "_sync.queues",
    "RLock": "_sync.locks",
    "RwLock": "_sync.mutex",
    "SimpleQueue": "_sync.queues",
    "as_completed": "_completion",
    "dump": "debug",
    "first_completed": "_combinators",
    "gather": "_combinators",
    "local": "_sync.local",
    "map": "_mapping",
    "offload": "_os_threads.offload",
    "race": "_combinators",
    "receive_any": "_sync.channels",
    "standard_threads": "_patching.threads",
    "trace": "debug",
    "wait": "_completion",
}

# The public modules that nothing has imported so far become attributes in the same way.
MODULES = ("aio", "integrations", "serve", "testing")


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("vthreads")
    if name in MODULES:
        return import_module(f".{name}", __name__)
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    # Without the names that this module only imports.
    present = {name for name in globals() if name.startswith("__") or f"{__name__}.{name}" in modules}
    return sorted({*present, *__all__})
