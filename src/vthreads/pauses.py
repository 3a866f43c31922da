"""Trying again after pauses that grow: for what no descriptor tells of, and no OS thread may wait for instead.

A pause is in proportion to the time waited so far, so the delay it adds is too, up to its limit. A pause costs a timer;
cancelled in one, a call has done nothing that would have to be taken back.
"""

from __future__ import annotations

from math import inf

from ._core.thread import VirtualThread

__all__ = ["Pauses"]

SHORTEST = 0.0005


class Pauses:
    """The pauses of one call.

    Args:
        thread: who waits.
        longest: seconds of the longest pause.
        timeout: seconds that the call may wait in all; None: no limit.
    """

    __slots__ = ("_longest", "_next", "_thread", "_until")

    def __init__(self, thread: VirtualThread, longest: float, timeout: float | None = None) -> None:
        self._thread = thread
        self._longest = longest
        self._next = SHORTEST
        self._until = inf if timeout is None else thread.scheduler.clock.now() + timeout

    def park(self) -> bool:
        """Park for the next pause; false if the time was over before. Raises what is due."""
        seconds = self.next()
        if seconds is None:
            return False
        self._thread.park(None, seconds)
        return True

    def next(self, crowd: int = 1) -> float | None:
        """Tell the seconds of the next pause, None if the time is over.

        Args:
            crowd: how many try for the same; the more, the less often each.
        """
        left = self._until - self._thread.scheduler.clock.now()
        if left <= 0:
            return None
        seconds, self._next = self._next, min(self._next * 2, self._longest)
        return min(seconds * crowd, left)
