"""The greenlets of a scheduler: starts them, keeps those whose fiber has ended, and ends those that are not needed.

A new fiber runs on a kept greenlet if there is one: a new greenlet takes 8 µs, a kept one about 1 µs. The pool does not
know fibers: all greenlets run the same code, which runs fiber after fiber.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from greenlet import getcurrent, greenlet

from ..repeated import repeated_in
from . import states
from .states import SHRINK_BY, SHRINK_PAUSE

__all__ = ["GreenletPool"]


@repeated_in("_core/engine/compiled/greenlet_pool.pxi")
class GreenletPool:
    """Greenlets that run `code` and are not in use now, longest first; `len()` is their number.

    All methods are called on the carrier. A greenlet that is switched to without a fiber to run must end.
    """

    def __init__(self, code: Callable[[], None]) -> None:
        self._code = code
        self._starter = greenlet(self._start_greenlets)
        # The new greenlet that the starter must start.
        self._unstarted: greenlet | None = None
        self._kept: list[greenlet] = []
        # The smallest number of kept greenlets since the last check, and the time of the next check.
        self._unwanted, self.shrinks_at = 0, -inf

    def __len__(self) -> int:
        return len(self._kept)

    def take(self) -> greenlet:
        """Return the greenlet to switch to for a new fiber: a kept one, or the starter, which starts a new one."""
        if self._kept:
            target = self._kept.pop()
            self._unwanted = min(self._unwanted, len(self._kept))
            return target
        self._unstarted = greenlet(self._code, self._starter)
        return self._starter

    def keep(self, me: greenlet) -> None:
        """Keep the current greenlet, whose fiber has ended. It switches away next."""
        self._kept.append(me)

    def may_shrink(self) -> bool:
        """Return whether to call `shrink` at `shrinks_at`."""
        return len(self._kept) > states.POOL_SIZE

    def shrink(self, now: float) -> None:
        """End greenlets that were not used for a while, so that a peak of load does not keep its memory."""
        spare = min(self._unwanted, len(self._kept) - states.POOL_SIZE)
        self._end(max(0, min(spare, SHRINK_BY)))
        self._unwanted = len(self._kept)
        self.shrinks_at = now + (SHRINK_PAUSE if spare > SHRINK_BY else states.SHRINK_EVERY)

    def close(self) -> None:
        """End all kept greenlets and the starter."""
        self._end(len(self._kept))
        self._starter.parent = getcurrent()
        self._starter.switch()

    def _end(self, count: int) -> None:
        """End the `count` greenlets that have been kept longest."""
        ended, self._kept[:count] = self._kept[:count], []
        for one in ended:
            one.parent = getcurrent()
            one.switch()

    def _start_greenlets(self) -> None:
        """The code of the starter: start each new greenlet, and switch back when the starter is switched to again.

        A greenlet starts with the recursion depth of the greenlet that starts it. If each were started by the fiber
        that parked before it, the depths would add up to a RecursionError after some hundred.
        """
        while self._unstarted is not None:
            target, self._unstarted = self._unstarted, None
            target.switch()
