"""Thread pools that were created before a run: during the run they have new threads and a new queue.

The existing threads of such a pool are OS threads, or threads of an earlier run, and its queue was made for them. After
the run the pool gets its previous state back, so that each run starts with the same state.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import ThreadPool
from typing import Any

from ..._patching.threads import is_virtual
from ..._sync.queues import SimpleQueue

__all__ = ["Pools"]

# The attributes of an executor that belong to its workers, and their initial values.
STATE: dict[str, Callable[[], Any]] = {
    "_work_queue": SimpleQueue,
    "_idle_semaphore": lambda: threading.Semaphore(0),
    "_threads": set,
}


class Pools:
    """The pools that a run has used."""

    def __init__(self) -> None:
        self._before: dict[int, tuple[Any, dict[str, Any]]] = {}

    def renew_executor(self, executor: ThreadPoolExecutor) -> None:
        """Give `executor` no workers and an empty queue, at its first use in this run."""
        if id(executor) not in self._before:
            attributes = vars(executor)
            self._before[id(executor)] = executor, {name: attributes[name] for name in STATE}
            attributes.update({name: make() for name, make in STATE.items()})

    def renew(self, pool: ThreadPool) -> None:
        """Start `pool` anew, at its first use in this run, unless it was created in this run or is closed."""
        attributes = vars(pool)
        helper = attributes["_worker_handler"]
        is_of_run = is_virtual(helper) and helper.is_alive()
        if id(pool) not in self._before and not is_of_run and attributes["_state"] == "RUN":
            self._before[id(pool)] = pool, dict(attributes)
            arguments = (attributes[name] for name in ("_processes", "_initializer", "_initargs"))
            # Not the method of a subclass, which may have other parameters.
            ThreadPool.__init__(pool, *arguments)

    def restore(self) -> None:
        """Restore the state of all pools from before the run."""
        before, self._before = self._before, {}
        for pool, attributes in before.values():
            # At exit, `multiprocessing` would end the threads of the run, which do not exist any more.
            end = vars(pool).get("_terminate")
            if end is not attributes.get("_terminate"):
                end.cancel()
            vars(pool).update(attributes)
