"""`ThreadPoolExecutor` with virtual threads as workers: idle workers end together with their carrier.

A pool that is not shut down keeps its workers until the interpreter exits. OS threads delay nothing by that. But a
carrier joins its threads at the end of its `run`, and would wait forever for idle workers. So it dismisses them: a
dismissed worker ends after the queued work. For the next call its pool starts a new one, perhaps on another carrier.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

from .._core.current import running
from .._core.engine import Scheduler
from .._core.participants import Participant, participate
from .._core.thread import VirtualThread
from .._sync.queues import SimpleQueue
from ..errors import Cancelled, Empty

__all__ = ["fit"]

# The positions of two arguments of `concurrent.futures.thread._worker`. Since Python 3.14 the context of the worker is
# between them.
POOL, QUEUE = 0, 2 if sys.version_info >= (3, 14) else 1


class _Membership:
    """Stands in for the pool and for the queue of a worker. For a dismissed worker both are empty."""

    def __init__(self, pool: Callable[[], Any], work: Any) -> None:
        self.pool = pool
        self.work = work
        self.member = threading.current_thread()
        self.dismissed = False

    def __call__(self) -> Any:
        """Return the pool; None makes the worker end."""
        return None if self.dismissed else self.pool()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.work, name)

    def get(self, block: bool = True) -> Any:
        """Like `SimpleQueue.get`, without a timeout; None when the worker is dismissed or cancelled without work."""
        if self.dismissed and self.work.empty():
            return None
        try:
            return self.work.get(block)
        except Cancelled:
            # An idle worker has no code of the program to stop, and the pool would log a critical error for it. But
            # work that has arrived meanwhile must be returned: its pool has started no other worker for it.
            with contextlib.suppress(Empty):
                return self.work.get_nowait()
            pool = self.pool()
            if pool is not None:
                self._leave(pool)
            return None

    def dismiss(self, thread: VirtualThread) -> bool:
        """End the worker as soon as no work is left; return whether this call has unparked it, or is the first."""
        pool = self.pool()
        if pool is None:
            return False
        first = not self.dismissed
        if first:
            self._leave(pool)
        # An item in the queue cannot dismiss a certain worker: another one, perhaps on an OS thread, may take it and go
        # on. So end the wait of this one.
        if isinstance(self.work, SimpleQueue) and self.work._end_wait(thread):
            return True
        # It does not wait, perhaps because it was preempted just before it does; or the program has given the pool
        # another queue, for example a bounded one. An item is the only way then. If another worker takes it, this one
        # waits, and the next call, which follows when all threads are parked, ends its wait.
        if first:
            self.work.put(None)
        return first

    def _leave(self, pool: Any) -> None:
        self.dismissed = True
        pool._threads.discard(self.member)
        if not pool._threads:
            # The pool starts no worker while this semaphore has permits, and Python 3.11 may release more of them than
            # there are idle workers. Take all of them, so that the next call starts a worker.
            while pool._idle_semaphore.acquire(blocking=False):
                pass


_workers: dict[VirtualThread, _Membership] = {}


def _dismiss(scheduler: Scheduler) -> bool:
    dismissed = [one.dismiss(thread) for thread, one in list(_workers.items()) if thread._scheduler is scheduler]
    return any(dismissed)


# In the child of a fork only the forking thread exists, and it ends with its process.
participate(__name__, Participant(dismiss=_dismiss, forked=_workers.clear))


def fit(module: ModuleType) -> list[Callable[[], None]]:
    """Register each worker that starts from now on; return the function that undoes it."""
    work: Callable[..., None] = module._worker

    @functools.wraps(work)
    def worker(*args: Any) -> None:
        thread = running()
        if thread is None:
            return work(*args)
        _workers[thread] = membership = _Membership(args[POOL], args[QUEUE])
        given = list(args)
        given[POOL] = given[QUEUE] = membership
        try:
            return work(*given)
        finally:
            _workers.pop(thread, None)

    module._worker = worker  # type: ignore[attr-defined]  # private to the module
    return [lambda: setattr(module, "_worker", work)]
