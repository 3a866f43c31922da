"""Events: a flag that threads wait for, virtual ones of any carrier and plain OS threads."""

from __future__ import annotations

from dataclasses import dataclass

from ._core.current import checkpoint
from ._core.engine import TIMED_OUT
from ._core.wait_queue import WaitQueue, waiter_here

__all__ = ["Event", "EventStatistics"]


@dataclass(frozen=True)
class EventStatistics:
    """A look at an event: whether it is set, and how many wait."""

    is_set: bool
    waiting: int


class Event:
    """As `threading.Event`: a flag that threads wait for."""

    __slots__ = ("__weakref__", "_flag", "_waiting")

    def __init__(self) -> None:
        self._flag = False
        self._waiting = WaitQueue()

    def __repr__(self) -> str:
        return f"<Event {'set' if self._flag else 'unset'} waiting={len(self._waiting)}>"

    def is_set(self) -> bool:
        """Whether the flag is set. Not a checkpoint; thread-safe."""
        return self._flag

    def set(self) -> None:
        """Set the flag and unpark all who wait. Not a checkpoint; thread-safe."""
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
        if timeout is not None and timeout <= 0:
            return self._flag
        checkpoint()
        if self._flag:
            return True
        waiter = waiter_here()
        self._waiting.add(waiter)
        # Who sets the flag looks for waiters afterwards: either it sees this one, or the flag is seen here.
        if self._flag and self._waiting.withdraw(waiter):
            return True
        return self._waiting.park(waiter, timeout) is not TIMED_OUT

    def statistics(self) -> EventStatistics:
        """Flag and waiters right now. Not a checkpoint; thread-safe."""
        return EventStatistics(self._flag, len(self._waiting))
