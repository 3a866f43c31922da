"""Blocks of several threads that run in numerical order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from .._core.blocks import block
from .._core.originals import allocate_lock
from .._sync.events import Event

__all__ = ["Sequencer"]


class Sequencer:
    """Runs blocks in numerical order: `with sequencer(0): …` here, `with sequencer(1): …` in another thread.

    Each block starts when the previous one has ended, whichever thread reaches its block first. Entering is a
    checkpoint (number 0 never waits), leaving is not; threads may be virtual or OS threads. Modelled on Trio's
    `Sequencer`.

    If the wait for a turn ends with an exception (for example a cancellation), later blocks would wait forever. So the
    sequence is then broken: entering a block that waits, or comes later, raises `RuntimeError`. A block that raises
    does not break the sequence.
    """

    def __init__(self) -> None:
        self._changing = allocate_lock()
        self._turns: defaultdict[int, Event] = defaultdict(Event)
        self._taken: set[int] = set()
        self._broken_at: int | None = None
        self._turns[0].set()

    def __repr__(self) -> str:
        broken = "" if self._broken_at is None else f" broken at {self._broken_at}"
        return f"<Sequencer taken={sorted(self._taken)}{broken}>"

    @block
    def __call__(self, position: int) -> Iterator[None]:
        """Return the block number `position`, counted from 0. Entering is a checkpoint; thread-safe.

        Raises:
            ValueError: `position` is negative.
            RuntimeError: the number was used before, or the sequence is broken.
        """
        turn, next_turn = self._take(position)
        try:
            turn.wait()
        except BaseException:
            # This number will never be used, so the later ones would wait without end: break the sequence.
            self._break_at(position)
            raise
        self._check_whole()
        try:
            yield
        finally:
            next_turn.set()

    def _take(self, position: int) -> tuple[Event, Event]:
        if position < 0:
            raise ValueError(f"sequencer({position}): blocks are numbered from 0; pass 0 or more")
        with self._changing:
            if position in self._taken:
                raise RuntimeError(f"{self!r} has a block number {position} already; give each block its own number")
            self._taken.add(position)
            turns = self._turns[position], self._turns[position + 1]
        self._check_whole()
        return turns

    def _check_whole(self) -> None:
        if self._broken_at is not None:
            raise RuntimeError(f"{self!r}: the wait for block {self._broken_at} has failed, so no later block can run")

    def _break_at(self, position: int) -> None:
        with self._changing:
            self._broken_at = position if self._broken_at is None else self._broken_at
            turns = list(self._turns.values())
        for turn in turns:
            turn.set()
