"""Replacement for `_multiprocessing.SemLock`, on which all locks of `multiprocessing` are built.

Processes share the semaphore, and no descriptor reports when it is free. So a virtual thread tries without waiting, and
retries after growing pauses, or as soon as the semaphore is released in this process. A wait on an OS thread is no
alternative: after it was abandoned it could still acquire the semaphore, and at exit perhaps never release it.

The owner of a recursive lock is a virtual thread here; the original sees OS threads only.
"""

from __future__ import annotations

import _multiprocessing  # type: ignore[import-not-found]  # not in the type stubs
from functools import partial
from typing import Any

from ..._core.arguments import checked_timeout
from ..._core.current import current_ident, on_carrier, running
from ..._core.deadlock import threads_on
from ..._core.delivery import resumed_delivery
from ..._core.thread import VirtualThread
from ..._core.wait_queue import WaitQueue, refuse_to_wait_inside_scheduler, waiter_here
from ..pauses import Pauses

__all__ = ["SemLock", "successor_of"]

OriginalSemLock: Any = _multiprocessing.SemLock

# As in `multiprocessing.synchronize`; the other kind is a semaphore.
RECURSIVE_MUTEX = 0

# Longest pause in seconds, which is also the longest delay after a release in another process. A lock that others hold
# nearly all the time is free for moments only, and a thread outside the kernel's queue must check often to catch one. A
# permit of a semaphore remains available until it is taken, so longer pauses suffice.
LONGEST_PAUSE_FOR_LOCKS = 0.001
LONGEST_PAUSE = 0.01
# Seconds for which a thread that is alone on its carrier may block it.
ALONE = 0.05

# Pairs of objects that share one handle. Never freed, because each would close the handle for the other.
_never_closed: list[tuple[Any, Any]] = []


class SemLock(OriginalSemLock):  # type: ignore[misc]  # its type is known at run time only
    """A lock or semaphore that processes share. Thread-safe."""

    # Class attributes, because `_rebuild` of the original creates objects without `__init__`.
    _owner: int | None = None
    _depth = 0
    # The object from before patching that this one replaces, if it was held then. It counts what it has acquired, and
    # only it can release a recursive lock.
    _before: Any = None
    # Whether a wait can be cancelled even inside a call that defers delivery otherwise.
    may_be_given_up = False

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Acquire it; wait up to `timeout` seconds. A checkpoint unless it does not wait.

        Returns False if the time has expired.
        """
        thread = running()
        if thread is None and not on_carrier():
            return self._acquire_on_os_thread(block, timeout)
        timeout = checked_timeout(timeout)
        if not block or timeout is not None and timeout <= 0:
            return self._take()
        if thread is None:
            if not self._take():
                refuse_to_wait_inside_scheduler()
            return True
        if self.may_be_given_up:
            with resumed_delivery():
                return self._wait(thread, timeout)
        return self._wait(thread, timeout)

    def release(self) -> None:
        """Release it once. Not a checkpoint.

        Raises:
            AssertionError: a recursive lock is not held by the calling thread.
            ValueError: it was released more often than acquired.
        """
        if self.kind == RECURSIVE_MUTEX:
            if self._owner != current_ident():
                raise AssertionError("attempt to release recursive lock not owned by thread")
            self._depth -= 1
            if self._depth:
                return
            self._owner = None
        self._post()
        waiting = self.__dict__.get("_waiting")
        if waiting is not None:
            waiting.unpark_one()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    # --- methods that the standard library's code calls

    def _is_mine(self) -> bool:
        return self._owner == current_ident() and self._count() > 0

    def _count(self) -> int:
        if self.kind == RECURSIVE_MUTEX:
            return self._depth
        count: int = super()._count()
        return count if self._before is None else count + int(self._before._count())

    def _after_fork(self) -> None:
        self.__dict__.clear()
        super()._after_fork()

    def _post(self) -> None:
        before = self._before
        held = 0 if before is None else before._count()
        if not held:
            super().release()
            return
        # A recursive lock is released by as many calls as have acquired it.
        for _ in range(held if self.kind == RECURSIVE_MUTEX else 1):
            before.release()

    # --- acquiring

    def _acquire_on_os_thread(self, block: bool, timeout: float | None) -> bool:
        if self._is_owned_recursively():
            return True
        if not super().acquire(block, timeout):
            return False
        self._note_owner()
        return True

    def _take(self) -> bool:
        if self._is_owned_recursively():
            return True
        if self.kind == RECURSIVE_MUTEX and self._owner is not None:
            # Another thread of this process holds it. If it runs on the same carrier, the original would see the same
            # owner and count up, so do not call it.
            return False
        if not super().acquire(False):
            return False
        self._note_owner()
        return True

    def _is_owned_recursively(self) -> bool:
        if self.kind != RECURSIVE_MUTEX or self._owner != current_ident():
            return False
        self._depth += 1
        return True

    def _note_owner(self) -> None:
        self._owner = current_ident()
        self._depth = 1

    def _wait(self, thread: VirtualThread, timeout: float | None) -> bool:
        thread._check()
        waiting: WaitQueue = self.__dict__.setdefault("_waiting", WaitQueue())
        pauses = Pauses(thread, LONGEST_PAUSE_FOR_LOCKS if self.maxvalue == 1 else LONGEST_PAUSE, timeout)
        while not self._take():
            if timeout is None and self._owner is None and _is_alone(thread):
                # For example a worker process of a pool that waits for its next task. Blocking the carrier delays no
                # other thread, and the queue of the kernel is faster than pauses.
                if super().acquire(True, ALONE):
                    self._note_owner()
                    return True
                thread._yield_now()
                continue
            seconds = pauses.next(crowd=len(waiting) + 1)
            if seconds is None:
                return False
            waiter = waiter_here()
            waiting.add(waiter)
            waiter._park(partial(waiting.withdraw, waiter), seconds)
        return True


def _is_alone(thread: VirtualThread) -> bool:
    """Return whether blocking the carrier of `thread` would delay nothing else."""
    scheduler = thread._scheduler
    if thread is not scheduler.root or len(scheduler.timers) or scheduler.descriptors.waiting or thread._pending:
        return False
    return all(other is thread for other in threads_on(scheduler))


def successor_of(old: Any) -> SemLock | None:
    """Return a `SemLock` for the semaphore of `old`, created before patching.

    None if another OS thread holds it as a recursive lock: nothing shows which one.
    """
    held = old._count()
    if held and old.kind == RECURSIVE_MUTEX and not old._is_mine():
        return None
    new: SemLock = SemLock._rebuild(old.handle, old.kind, old.maxvalue, old.name)
    if held:
        new._before, new._depth = old, held
        new._owner = current_ident() if old._is_mine() else None
    if old.name is None:
        # A named semaphore was opened again by its name, so it has its own handle. This one shares the handle.
        _never_closed.append((old, new))
    return new
