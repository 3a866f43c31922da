"""A block in which nothing may park."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .._core.current import running
from .places import describe_call
from .probes import ProbedThread, probe_thread

__all__ = ["Parked", "no_park"]


class Parked(AssertionError):
    """Something parked, or let others run, in a `no_park` block."""


class _Forbidden:
    """Probe that lets checkpoints pass, and refuses what would let others run."""

    def __init__(self) -> None:
        # The first refused, which may have been swallowed or come where nothing can be raised.
        self.first: Parked | None = None

    def checks(self, thread: ProbedThread) -> None:
        """A checkpoint alone lets nobody else run."""

    def yields(self, thread: ProbedThread) -> None:
        raise self._noted(f"{thread!r} lets others run in a no_park block, by {describe_call(thread)}")

    def parks(self, thread: ProbedThread) -> None:
        raise self._noted(f"{thread!r} would park in a no_park block, in {describe_call(thread)}")

    def parks_for_good(self, thread: ProbedThread) -> None:
        self._noted(f"{thread!r} parked in a no_park block, in {describe_call(thread)}")

    def _noted(self, message: str) -> Parked:
        parked = Parked(message)
        self.first = self.first or parked
        return parked


@contextmanager
def no_park() -> Iterator[None]:
    """Make a block in which the running virtual thread must not park.

    A call that would park raises `Parked`, an `AssertionError` that names the call, before it takes effect; so does one
    that lets others run (`sleep(0)`, `checkpoint()`). Checkpoints that need not wait pass, and so does the yield that a
    long run brings at any checkpoint. Starting an OS thread parks: `Thread.start` waits until the new one runs, which
    it does then although `Parked` is raised. Where nothing can be raised (a lock taken back for `Condition.wait`, the
    end of a group), or if the error was swallowed, the block itself raises it at its end. Threads spawned inside may
    park.

    Entering and leaving are no checkpoints. On a plain OS thread the block does nothing: nothing parks there.
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
