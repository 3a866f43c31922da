"""`ThreadPoolExecutor` with virtual threads as workers: idle workers end together with their carrier.

A pool that is not shut down keeps its workers until the interpreter exits. OS threads delay nothing by that. But a
carrier joins its threads at the end of its `run`, and would wait forever for idle workers. So it dismisses them: a
dismissed worker ends after the queued work. For the next call its pool starts a new one, perhaps on another carrier.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

from .._core.current import running
from .._core.engine import Scheduler
from .._core.participants import Participant, participate
from .._core.thread import VirtualThread

__all__ = ["fit"]


class _Membership:
    """Replaces the weak reference through which a worker checks for its pool: None makes the worker end."""

    def __init__(self, pool: Callable[[], Any]) -> None:
        self.pool = pool
        self.thread = threading.current_thread()
        self.dismissed = False

    def __call__(self) -> Any:
        return None if self.dismissed else self.pool()

    def dismiss(self) -> bool:
        pool = self.pool()
        if self.dismissed or pool is None:
            return False
        self.dismissed = True
        pool._threads.discard(self.thread)
        if not pool._threads:
            # The pool starts no worker while this semaphore has permits, and Python 3.11 may release more of them than
            # there are idle workers. Take all of them, so that the next call starts a worker.
            while pool._idle_semaphore.acquire(blocking=False):
                pass
        # The item wakes a worker after the queued work. If another worker takes it, that worker continues.
        pool._work_queue.put(None)
        return True


_workers: dict[VirtualThread, _Membership] = {}


def _dismiss(scheduler: Scheduler) -> bool:
    dismissed = [member.dismiss() for thread, member in list(_workers.items()) if thread._scheduler is scheduler]
    return any(dismissed)


# In the child of a fork only the forking thread exists, and it ends with its process.
participate(__name__, Participant(dismiss=_dismiss, forked=_workers.clear))


def fit(module: ModuleType) -> list[Callable[[], None]]:
    """Register each worker that starts from now on; return the function that undoes it."""
    work: Callable[..., None] = module._worker

    @functools.wraps(work)
    def worker(pool: Callable[[], Any], *args: Any) -> None:
        thread = running()
        if thread is None:
            return work(pool, *args)
        _workers[thread] = membership = _Membership(pool)
        try:
            return work(membership, *args)
        finally:
            _workers.pop(thread, None)

    module._worker = worker  # type: ignore[attr-defined]  # private to the module
    return [lambda: setattr(module, "_worker", work)]
