"""A block in which a virtual thread must not park."""

from __future__ import annotations

from collections.abc import Iterator

from .._core.blocks import block
from .._core.cancel import CancelNode
from .._core.current import running
from ._checkpoint_probe import ProbedThread, probe_thread
from ._places import describe_call

__all__ = ["Parked", "no_park"]


class Parked(AssertionError):
    """A virtual thread parked, or gave way to others, in a `no_park` block."""


class _Forbidden:
    """Probe that allows checkpoints, and refuses calls that would let other threads run."""

    def __init__(self) -> None:
        # The first refused call. Its error may have been swallowed, or could not be raised there.
        self.first: Parked | None = None

    def checks(self, thread: ProbedThread) -> None:
        """Allow it: a checkpoint alone does not let other threads run."""

    def yields(self, thread: ProbedThread) -> None:
        raise self._noted(f"{thread!r} lets other threads run in a no_park block, by {describe_call(thread)}")

    def parks(self, thread: ProbedThread) -> None:
        raise self._noted(f"{thread!r} would park in a no_park block, in {describe_call(thread)}")

    def parks_uncancellably(self, thread: ProbedThread) -> None:
        self._noted(f"{thread!r} parked in a no_park block, in {describe_call(thread)}")

    def delivers(self, thread: ProbedThread, node: CancelNode) -> None:
        """Allow it: a cancellation does not let other threads run."""

    def _noted(self, message: str) -> Parked:
        parked = Parked(message)
        self.first = self.first or parked
        return parked


@block
def no_park() -> Iterator[None]:
    """Return a block in which the running virtual thread must not park.

    A call that would park raises `Parked`, an `AssertionError` that names the call, before it takes effect. So does a
    call that lets other threads run (`sleep(0)`, `checkpoint()`). Checkpoints that need not wait are allowed, and so is
    the yield at a checkpoint after a long run. Starting an OS thread parks: `Thread.start` waits until the new thread
    runs, and it does run although `Parked` is raised. Where raising is not possible (a `Condition.wait` that acquires
    its lock again, the end of a group), or if the error was swallowed, the block raises it at its end. Threads spawned
    inside may park.

    Entering and leaving are no checkpoints. On a plain OS thread the block does nothing, because OS threads do not
    park.
    """
    thread = running()
    if thread is None:
        yield
        return
    forbidden = _Forbidden()
    undo = probe_thread(thread, forbidden)
    try:
        yield
    finally:
        undo()
    if forbidden.first is not None:
        raise forbidden.first
