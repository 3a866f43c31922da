"""A virtual thread whose checkpoints are observed.

While its flag `pending` is set, a thread checks at each checkpoint what to raise. A probed thread keeps the flag set
and calls its probe first. A thread is probed by changing its class, so that other threads pay nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from .._core.cancel import CancelNode
from .._core.thread import VirtualThread
from ..errors import Cancelled

__all__ = ["Probe", "ProbedThread", "probe_thread", "unprobe_thread"]

Abort = Callable[[], bool]


class Probe(Protocol):
    """Called at the checkpoints of a probed thread, which raise what these methods raise. They must not park."""

    def checks(self, thread: ProbedThread) -> None:
        """The thread is at the start of a checkpoint, whether it will park or not."""

    def yields(self, thread: ProbedThread) -> None:
        """The thread is about to let every ready thread run once."""

    def parks(self, thread: ProbedThread) -> None:
        """The thread is about to park, and the wait can be cancelled."""

    def parks_uncancellably(self, thread: ProbedThread) -> None:
        """The thread is about to park in a wait that cannot be cancelled; this must not raise."""

    def delivers(self, thread: ProbedThread, node: CancelNode) -> None:
        """The cancellation of `node` is delivered and raised next; this must not raise."""


class ProbedThread(VirtualThread):
    """A virtual thread with a probe. `probe_thread` makes an existing thread one."""

    __slots__ = ()

    probe: Probe

    def is_deferring(self) -> bool:
        """Return whether delivery is deferred, so that no checkpoint raises."""
        return self._deferred > 0

    def _raise_due(self) -> None:
        self.probe.checks(self)
        super()._raise_due()

    def _yield_now(self) -> None:
        self.probe.yields(self)
        super()._yield_now()

    def _park_pending(self, abort: Abort | None, deadline: float) -> Any:
        try:
            self.probe.parks(self)
        except BaseException:
            # The probe raises in place of the wait. A park that is cancelled ends in the same way: withdraw the waiter.
            if abort is None or abort():
                # The wait ends without a park, so the next wait is not inside this one.
                self._has_begun_to_wait = False
                raise
            # The wait was granted meanwhile: accept it, because it was granted to no other thread.
            return self._park_through()
        return super()._park_pending(abort, deadline)

    def _park_through(self) -> Any:
        self.probe.parks_uncancellably(self)
        return super()._park_through()

    def _park_for_interrupts(self, abort: Abort) -> Any:
        self.probe.parks_uncancellably(self)
        return super()._park_for_interrupts(abort)

    def _refresh(self) -> None:
        super()._refresh()
        self._pending = True

    def _deliver(self, node: CancelNode) -> Cancelled:
        error = super()._deliver(node)
        self.probe.delivers(self, node)
        return error


def probe_thread(thread: VirtualThread, probe: Probe) -> Callable[[], None]:
    """Call `probe` at the checkpoints of `thread`; return the undo. Call it on that thread, or while it is parked.

    A thread has one probe at a time, the latest; its undo restores the previous one.
    """
    before = thread.__dict__.get("probe")
    thread.__class__ = ProbedThread
    thread.probe = probe  # type: ignore[attr-defined]  # of the class that it has now
    thread._pending = True

    def undo() -> None:
        if before is None:
            unprobe_thread(thread)
        else:
            thread.probe = before  # type: ignore[attr-defined]  # likewise

    return undo


def unprobe_thread(thread: VirtualThread) -> None:
    """Remove the probe of `thread`."""
    thread.__dict__.pop("probe", None)
    thread.__class__ = VirtualThread
    thread._refresh()
