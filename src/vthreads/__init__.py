"""Virtual threads: write plain blocking Python, run very many at once, never leak one.

    from vthreads import ThreadGroup

    with ThreadGroup(max_concurrency=8) as g:
        futures = {url: g.spawn(requests.get, url) for url in urls}

Importing starts nothing and patches nothing.

PYTEST_DONT_REWRITE: there is a plugin of pytest in this distribution, and this package may be imported long before
pytest, which would warn that it comes too late to rewrite its asserts (`python -m vthreads run -m pytest`).
"""

from __future__ import annotations

from . import errors, preemption, signals  # noqa: F401  these take part in starting, patched or not
from ._core import fork  # noqa: F401  so does this
from ._core.cancel import CancelScope, remaining
from ._core.future import Future
from ._core.group import ThreadGroup
from ._core.runtime import checkpoint, current_thread, now, run, spawn, stopping
from ._core.semaphore import BoundedSemaphore, Semaphore
from ._core.thread import VirtualThread
from .barriers import Barrier
from .channels import Channel, receive_any
from .combinators import first_completed, gather, race
from .completion import as_completed, wait
from .conditions import Condition
from .debug import dump, trace
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
from .events import Event
from .local import local
from .locks import Lock, RLock
from .mapping import map
from .mutex import Mutex, RwLock
from .offload import offload
from .patching import patch, unpatch
from .queues import LifoQueue, PriorityQueue, Queue, SimpleQueue
from .timeouts import fail_after, fail_at, move_on_after, move_on_at, shield, sleep

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
    "stopping",
    "trace",
    "unpatch",
    "wait",
]
