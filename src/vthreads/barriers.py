"""Barriers: threads that wait for one another, virtual ones of any carrier and plain OS threads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import BrokenBarrierError
from typing import Any

from ._core.current import checkpoint
from ._core.originals import RLock as Section
from ._core.wait_queue import Waiter, WaitQueue, waiter_here

__all__ = ["Barrier", "BarrierStatistics", "BrokenBarrierError"]


@dataclass(frozen=True)
class BarrierStatistics:
    """A look at a barrier: how many wait, how many it takes, and whether it is broken."""

    waiting: int
    parties: int
    broken: bool


class _Round:
    """One filling of a barrier."""

    __slots__ = ("arrived", "broken", "successor", "waiting")

    def __init__(self) -> None:
        self.arrived = 0
        self.broken = False
        self.waiting = WaitQueue()
        # The next filling, which begins when the last party has arrived here.
        self.successor: _Round | None = None


class Barrier:
    """As `threading.Barrier`: `parties` threads wait for one another, again and again.

    A party that leaves, by a timeout, a cancellation or an exception of `action`, breaks it for all: they get
    `threading.BrokenBarrierError`.

    Args:
        parties: how many it takes, 1 or more.
        action: called by the last to arrive, before any of them goes on.
        timeout: seconds, the default of `wait`.

    Raises:
        ValueError: `parties` is less than 1.
    """

    def __init__(self, parties: int, action: Callable[[], Any] | None = None, timeout: float | None = None) -> None:
        if parties < 1:
            raise ValueError(f"a barrier takes 1 party or more, not {parties}")
        self._parties = parties
        self._action = action
        self._timeout = timeout
        # Reentrant, because a finalizer that aborts may run inside.
        self._changing = Section()
        self._round = _Round()

    def __repr__(self) -> str:
        state = "broken" if self.broken else f"waiting={self.n_waiting}/{self._parties}"
        return f"<Barrier {state}>"

    @property
    def parties(self) -> int:
        """How many it takes."""
        return self._parties

    @property
    def n_waiting(self) -> int:
        """How many wait right now."""
        return len(self._round.waiting)

    @property
    def broken(self) -> bool:
        """Whether a party has left it."""
        return self._round.broken

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the others. A checkpoint, unless the timeout is 0; thread-safe.

        Args:
            timeout: seconds; None: that of the barrier.

        Returns:
            A different number from 0 to `parties - 1` for each party of a round.

        Raises:
            threading.BrokenBarrierError: a party left, or the barrier was reset or aborted.
        """
        seconds = self._timeout if timeout is None else timeout
        at_once = seconds is not None and seconds <= 0
        if not at_once:
            checkpoint()
        waiter = waiter_here()
        with self._changing:
            current = self._round
            if current.broken:
                raise BrokenBarrierError
            index, current.arrived = current.arrived, current.arrived + 1
            is_last = current.arrived == self._parties
            if is_last:
                self._round = current.successor = _Round()
            elif at_once:
                self._break(current)
                raise BrokenBarrierError
            else:
                current.waiting.add(waiter)
                if current.broken:
                    # By a finalizer, between the look and the queueing.
                    current.waiting.unpark_all(False)
        if is_last:
            self._open(current)
        elif waiter.park(lambda: self._leave(current, waiter), seconds) is not True:
            raise BrokenBarrierError
        return index

    def _open(self, current: _Round) -> None:
        try:
            if self._action is not None:
                self._action()
        except BaseException:
            self._break(current)
            raise
        with self._changing:
            if current.broken:
                raise BrokenBarrierError
            current.waiting.unpark_all(True)

    def _leave(self, current: _Round, waiter: Waiter) -> bool:
        # In one step, so that no round opens after a party has left it.
        with self._changing:
            left = current.waiting.withdraw(waiter)
            if left:
                self._break(current)
            return left

    def _break(self, current: _Round | None) -> None:
        with self._changing:
            while current is not None:
                current.broken = True
                current.waiting.unpark_all(False)
                current = current.successor

    def reset(self) -> None:
        """Make it as new; those who wait get `BrokenBarrierError`. Not a checkpoint; thread-safe."""
        with self._changing:
            current, self._round = self._round, _Round()
            self._break(current)

    def abort(self) -> None:
        """Break it for good; those who wait get `BrokenBarrierError`. Not a checkpoint; thread-safe."""
        with self._changing:
            self._break(self._round)

    def statistics(self) -> BarrierStatistics:
        """Waiters, parties and state right now. Not a checkpoint; thread-safe."""
        return BarrierStatistics(self.n_waiting, self._parties, self.broken)
