"""Thread pools that were created before a run: during the run they have new workers and a new queue.

The existing workers of such a pool are OS threads, or threads of an earlier run, and its queue was made for them. After
the run the pool gets its previous state back, so that each run starts with the same state.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..._sync.queues import SimpleQueue

__all__ = ["Pools"]

# The attributes of a pool that belong to its workers, and their initial values.
STATE: dict[str, Callable[[], Any]] = {
    "_work_queue": SimpleQueue,
    "_idle_semaphore": lambda: threading.Semaphore(0),
    "_threads": set,
}


class Pools:
    """The pools that a run has used."""

    def __init__(self) -> None:
        self._before: dict[int, tuple[ThreadPoolExecutor, dict[str, Any]]] = {}

    def renew(self, pool: ThreadPoolExecutor) -> None:
        """Give `pool` no workers and an empty queue, at its first use in this run."""
        if id(pool) not in self._before:
            attributes = vars(pool)
            self._before[id(pool)] = pool, {name: attributes[name] for name in STATE}
            attributes.update({name: make() for name, make in STATE.items()})

    def restore(self) -> None:
        """Restore the state of all pools from before the run."""
        before, self._before = self._before, {}
        for pool, attributes in before.values():
            vars(pool).update(attributes)
