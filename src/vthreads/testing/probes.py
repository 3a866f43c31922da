"""A virtual thread whose checkpoints are watched.

While its flag `pending` is set, a thread asks itself at each checkpoint what to raise. A probed thread keeps the flag
set and asks its probe first. Threads are probed by exchanging their class, so that unprobed ones pay nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from .._core.thread import VirtualThread

__all__ = ["Probe", "ProbedThread", "probe_thread", "unprobe_thread"]

Abort = Callable[[], bool]


class Probe(Protocol):
    """What is asked in a probed thread. What these raise comes out of the checkpoint; they must not park."""

    def checks(self, thread: ProbedThread) -> None:
        """The thread is at the beginning of a checkpoint, whether it will have to park or not."""

    def yields(self, thread: ProbedThread) -> None:
        """The thread is about to let every ready thread run once."""

    def parks(self, thread: ProbedThread) -> None:
        """The thread is about to park, and the wait can be given up."""

    def parks_for_good(self, thread: ProbedThread) -> None:
        """The thread is about to park in a wait that is not to be given up; this must not raise."""


class ProbedThread(VirtualThread):
    """A virtual thread with a probe. Made by `probe_thread` from one that exists."""

    __slots__ = ()

    probe: Probe

    def is_deferring(self) -> bool:
        """Whether nothing is delivered at the moment, at whatever checkpoint."""
        return self._deferred > 0

    def raise_due(self) -> None:
        self.probe.checks(self)
        super().raise_due()

    def yield_now(self) -> None:
        self.probe.yields(self)
        super().yield_now()

    def park_pending(self, abort: Abort | None, deadline: float) -> Any:
        try:
            self.probe.parks(self)
        except BaseException:
            if abort is None or abort():
                raise
            # Granted meanwhile: nobody else may have it.
            return self.park_through()
        return super().park_pending(abort, deadline)

    def park_through(self) -> Any:
        self.probe.parks_for_good(self)
        return super().park_through()

    def park_for_interrupts(self, abort: Abort) -> Any:
        self.probe.parks_for_good(self)
        return super().park_for_interrupts(abort)

    def refresh(self) -> None:
        super().refresh()
        self.pending = True


def probe_thread(thread: VirtualThread, probe: Probe) -> Callable[[], None]:
    """Let `probe` be asked at the checkpoints of `thread`, from that thread or while it is not running; the undo.

    A thread has one probe at a time, the latest; its undo puts the one before back.
    """
    before = thread.__dict__.get("probe")
    thread.__class__ = ProbedThread
    thread.probe = probe  # type: ignore[attr-defined]  # of the class that it has now
    thread.pending = True

    def undo() -> None:
        if before is None:
            unprobe_thread(thread)
        else:
            thread.probe = before  # type: ignore[attr-defined]  # likewise

    return undo


def unprobe_thread(thread: VirtualThread) -> None:
    """`thread` is an ordinary one again."""
    thread.__dict__.pop("probe", None)
    thread.__class__ = VirtualThread
    thread.refresh()
