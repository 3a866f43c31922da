"""Events: a flag that virtual threads of any carrier and plain OS threads can wait for."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from .._core.arguments import checked_timeout
from .._core.copies import refuse_copy
from .._core.current import check_here
from .._core.engine import TIMED_OUT
from .._core.on_demand import ModuleOnDemand
from .._core.wait_queue import WaitQueue, waiter_here

if TYPE_CHECKING:
    from . import statistics as snapshots
else:
    snapshots = ModuleOnDemand("vthreads._sync.statistics")

__all__ = ["Event"]


class Event:
    """Like `threading.Event`: a flag that threads wait for."""

    __slots__ = ("__weakref__", "_flag", "_waiting")

    def __init__(self) -> None:
        self._flag = False
        self._waiting = WaitQueue()

    def __reduce__(self) -> NoReturn:
        refuse_copy(self)

    def __repr__(self) -> str:
        return f"<Event {'set' if self._flag else 'unset'} waiting={len(self._waiting)}>"

    def is_set(self) -> bool:
        """Return whether the flag is set. Not a checkpoint; thread-safe."""
        return self._flag

    def set(self) -> None:
        """Set the flag and unpark all waiters. Not a checkpoint; thread-safe."""
        self._flag = True
        self._waiting.unpark_all()

    def clear(self) -> None:
        """Clear the flag. Not a checkpoint; thread-safe."""
        self._flag = False

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the flag is set. A checkpoint, unless the timeout is 0; thread-safe.

        Args:
            timeout: seconds, or None for no limit.

        Returns:
            False if the timeout came first.
        """
        seconds = checked_timeout(timeout)
        if seconds is not None and seconds <= 0:
            return self._flag
        check_here()
        if self._flag:
            return True
        waiter = waiter_here()
        self._waiting.add(waiter)
        # `set` stores the flag first and then unparks the queue. So either `set` finds this waiter, or this thread,
        # already queued, reads the new flag. Without the second check a `set` between check and queueing would be lost.
        if self._flag and self._waiting.withdraw(waiter):
            return True
        return self._waiting.park(waiter, seconds) is not TIMED_OUT

    def statistics(self) -> snapshots.EventStatistics:
        """Return the current flag and number of waiters. Not a checkpoint; thread-safe."""
        return snapshots.EventStatistics(self._flag, len(self._waiting))
