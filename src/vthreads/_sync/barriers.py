"""Barriers, at which virtual threads of any carrier and plain OS threads wait for each other."""

from __future__ import annotations

from collections.abc import Callable
from threading import BrokenBarrierError
from typing import TYPE_CHECKING, Any, NoReturn

from .._core.arguments import checked_count, checked_timeout
from .._core.copies import refuse_copy
from .._core.current import check_here
from .._core.engine import Section
from .._core.on_demand import ModuleOnDemand
from .._core.wait_queue import Waiter, WaitQueue, waiter_here

if TYPE_CHECKING:
    from . import statistics as snapshots
else:
    snapshots = ModuleOnDemand("vthreads._sync.statistics")

__all__ = ["Barrier", "BrokenBarrierError"]


class _Round:
    """One use of a barrier: from its first arrival until it opens or breaks."""

    __slots__ = ("arrived", "broken", "opened", "successor", "waiting")

    def __init__(self) -> None:
        self.arrived = 0
        self.broken = self.opened = False
        self.waiting = WaitQueue()
        # The round that begins when the last party has arrived here. `reset` leaves it None, which ends the chain.
        self.successor: _Round | None = None


class Barrier:
    """Like `threading.Barrier`: `parties` threads wait for each other, round after round.

    A party that leaves a round early (timeout, cancellation, exception in `action`) breaks the barrier: every other
    party gets `threading.BrokenBarrierError`.

    Args:
        parties: number of threads that open the barrier, 1 or more.
        action: called in the last thread to arrive, before any thread continues.
        timeout: seconds; default for `wait`.

    Raises:
        TypeError: `parties` is not a whole number.
        ValueError: `parties` is less than 1.
    """

    def __init__(self, parties: int, action: Callable[[], Any] | None = None, timeout: float | None = None) -> None:
        self._parties = checked_count(parties, "parties", 1)
        self._action = action
        self._timeout = checked_timeout(timeout)
        # Reentrant: the garbage collector may run a finalizer that calls `abort` while this thread holds it.
        self._changing = Section()
        self._round = _Round()

    def __reduce__(self) -> NoReturn:
        refuse_copy(self)

    def __repr__(self) -> str:
        state = "broken" if self.broken else f"waiting={self.n_waiting}/{self._parties}"
        return f"<Barrier {state}>"

    @property
    def parties(self) -> int:
        """Number of threads that open the barrier."""
        return self._parties

    @property
    def n_waiting(self) -> int:
        """Number of threads that wait right now."""
        return len(self._round.waiting)

    @property
    def broken(self) -> bool:
        """Whether a party left early or `abort` was called."""
        return self._round.broken

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the other parties. A checkpoint, unless the timeout is 0; thread-safe.

        Args:
            timeout: seconds; None uses the timeout of the barrier.

        Returns:
            A different number from 0 to `parties - 1` for each party of a round.

        Raises:
            threading.BrokenBarrierError: a party left early, or the barrier was reset or aborted.
        """
        seconds = self._timeout if timeout is None else checked_timeout(timeout)
        at_once = seconds is not None and seconds <= 0
        if not at_once:
            check_here()
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
                if current.broken or current.opened:
                    # A finalizer broke the round, or the last party opened it while a finalizer ran, before this
                    # waiter was queued. The call that unparks all is over, so unpark the late waiter here.
                    current.waiting.unpark_all(not current.broken)
        if is_last:
            self._open(current)
        elif waiter._park(lambda: self._leave(current, waiter), seconds) is not True:
            raise BrokenBarrierError
        return index

    def _open(self, current: _Round) -> None:
        try:
            if self._action is not None:
                self._action()
        except BaseException:
            # The round never completes, so its other threads must not wait on: as `threading.Barrier`, break it.
            self._break(current)
            raise
        with self._changing:
            if current.broken:
                raise BrokenBarrierError
            current.opened = True
            current.waiting.unpark_all(True)

    def _leave(self, current: _Round, waiter: Waiter) -> bool:
        # Leaving and breaking are one step, so no round opens after one of its parties has left.
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
        """Start over with a new round; current waiters get `BrokenBarrierError`. Not a checkpoint; thread-safe."""
        with self._changing:
            current, self._round = self._round, _Round()
            self._break(current)

    def abort(self) -> None:
        """Break the barrier permanently; current waiters get `BrokenBarrierError`. Not a checkpoint; thread-safe."""
        with self._changing:
            self._break(self._round)

    def statistics(self) -> snapshots.BarrierStatistics:
        """Return waiters, parties and state. Not a checkpoint; thread-safe."""
        return snapshots.BarrierStatistics(self.n_waiting, self._parties, self.broken)
