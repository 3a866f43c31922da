"""Retry after growing pauses, for events that no descriptor reports and that no OS thread may wait for instead.

Each pause is as long as the time waited before it, so the added delay stays in proportion to the wait, up to a limit.
A pause only costs a timer. A call that is cancelled in a pause has acquired nothing that it would have to give back.
"""

from __future__ import annotations

from math import inf

from .._core.thread import VirtualThread
from .._core.wait_queue import waiter_here

__all__ = ["Pauses"]

SHORTEST = 0.0005


class Pauses:
    """The pauses of one call.

    Args:
        thread: the virtual thread that waits.
        longest: length of the longest pause, in seconds.
        timeout: total seconds that the call may wait; None for no limit.
    """

    __slots__ = ("_longest", "_next", "_thread", "_until")

    def __init__(self, thread: VirtualThread, longest: float, timeout: float | None = None) -> None:
        self._thread = thread
        self._longest = longest
        self._next = SHORTEST
        self._until = inf if timeout is None else thread._scheduler.clock.now() + timeout

    def park(self) -> bool:
        """Park for the next pause; return False if the time had expired before. Raises a pending cancellation."""
        seconds = self.next()
        if seconds is None:
            return False
        waiter_here()._park(None, seconds)
        return True

    def next(self, crowd: int = 1) -> float | None:
        """Return the seconds of the next pause, or None if the time has expired.

        Args:
            crowd: number of threads that retry for the same thing; each retries less often if they are more.
        """
        left = self._until - self._thread._scheduler.clock.now()
        if left <= 0:
            return None
        seconds, self._next = self._next, min(self._next * 2, self._longest)
        return min(seconds * crowd, left)
