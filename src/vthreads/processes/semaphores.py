"""What `_multiprocessing.SemLock` becomes, on which all locks of `multiprocessing` are built.

The semaphore is shared by processes, and the kernel tells no descriptor when it is free. It is tried for without
waiting, and tried for again after pauses that grow, or as soon as it is released in this process. An OS thread that
waited instead would, once abandoned, take what others wait for, and at exit perhaps never give it back.

The owner of a recursive lock is a virtual thread here; the original knows OS threads only.
"""

from __future__ import annotations

import _multiprocessing  # type: ignore[import-not-found]  # not in the type stubs
from typing import Any

from .._core.current import current_ident, running
from .._core.deadlock import threads_below
from .._core.delivery import resumed_delivery
from .._core.thread import VirtualThread
from .._core.wait_queue import WaitQueue
from ..pauses import Pauses

__all__ = ["SemLock", "successor_of"]

OriginalSemLock: Any = _multiprocessing.SemLock

# As in `multiprocessing.synchronize`; the other kind is a semaphore.
RECURSIVE_MUTEX = 0

# Seconds: how late the news from another process may come. A lock that others hold nearly all the time is free for
# moments only, and whoever does not queue for it has to look often; a permit of a semaphore stays until it is taken.
LONGEST_PAUSE_FOR_LOCKS = 0.001
LONGEST_PAUSE = 0.01
# Seconds for which a thread that is alone on its carrier keeps it.
ALONE = 0.05

# Two objects of one handle: each would close it for the other.
_never_closed: list[tuple[Any, Any]] = []


class SemLock(OriginalSemLock):  # type: ignore[misc]  # known at run time only
    """A lock or semaphore that processes share. Thread-safe."""

    # Made by the class method of the original as well, without `__init__`.
    _owner: int | None = None
    _depth = 0
    # The one wait inside a call that else is not to be given up: it may be.
    may_be_given_up = False

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Decrease, or wait up to `timeout` seconds for it. A checkpoint unless it does not wait."""
        thread = running()
        if thread is None:
            return self._acquire_on_os_thread(block, timeout)
        if not block or timeout is not None and timeout <= 0:
            return self._take()
        if self.may_be_given_up:
            with resumed_delivery():
                return self._wait(thread, timeout)
        return self._wait(thread, timeout)

    def release(self) -> None:
        """Increase. Not a checkpoint.

        Raises:
            AssertionError: a recursive lock is held by another thread, or by none.
            ValueError: it was released too often.
        """
        if self.kind == RECURSIVE_MUTEX:
            if self._owner != current_ident():
                raise AssertionError("attempt to release recursive lock not owned by thread")
            self._depth -= 1
            if self._depth:
                return
            self._owner = None
        super().release()
        waiting = self.__dict__.get("_waiting")
        if waiting is not None:
            waiting.unpark_one()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    # --- what the standard library's code asks

    def _is_mine(self) -> bool:
        return self._owner == current_ident() and self._count() > 0

    def _count(self) -> int:
        count: int = self._depth if self.kind == RECURSIVE_MUTEX else super()._count()
        return count

    def _after_fork(self) -> None:
        self.__dict__.clear()
        super()._after_fork()

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
            # By another thread of this process; of this carrier perhaps, and to the original that is the same one.
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
        thread.check()
        waiting: WaitQueue = self.__dict__.setdefault("_waiting", WaitQueue())
        pauses = Pauses(thread, LONGEST_PAUSE_FOR_LOCKS if self.maxvalue == 1 else LONGEST_PAUSE, timeout)
        while not self._take():
            if timeout is None and self._owner is None and _is_alone(thread):
                # As a worker process of a pool is, which waits for the next task: nobody is kept waiting.
                if super().acquire(True, ALONE):
                    self._note_owner()
                    return True
                thread.yield_now()
                continue
            seconds = pauses.next(crowd=len(waiting) + 1)
            if seconds is None:
                return False
            waiting.add(thread)
            thread.park(lambda: waiting.withdraw(thread), seconds)
        return True


def _is_alone(thread: VirtualThread) -> bool:
    """Whether nothing else would happen on the carrier of `thread` if it blocked."""
    scheduler = thread.scheduler
    if thread is not scheduler.root or len(scheduler.timers) or scheduler.descriptors.waiting or thread.pending:
        return False
    return all(other is thread for other in threads_below(scheduler))


def successor_of(old: Any) -> SemLock:
    """Make a `SemLock` of the semaphore of `old`, which was made before and which nobody in this process holds."""
    new: SemLock = SemLock._rebuild(old.handle, old.kind, old.maxvalue, old.name)
    if old.name is None:
        # Otherwise it has opened it by its name, and has a handle of its own.
        _never_closed.append((old, new))
    return new
