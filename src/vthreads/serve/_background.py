"""The threads that an application has started beside its requests: how they end with the server of their process.

    RUNNING ──stop──> stopping() is true ──drain_delay + drain s, or nothing can unpark them──> cancelled ──5 s──> over

Only for a process that the server owns: a worker of the command or of gunicorn. They are the members of the background
group (`vthreads.spawn`) and of the groups of `threading`. Requests end first, since a handler may pass work to these
threads. An OS thread measures the time: with a timer, the scheduler would not find that all threads wait forever.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from math import inf

from .._core.background import BackgroundGroup
from .._core.current import started_here
from .._core.deadlock import describe_wait
from .._core.engine import State
from .._core.originals import get_ident, sleep
from .._core.os_thread_kinds import own_os_threads
from .._core.own_os_thread import start_own_os_thread
from .._core.participants import dismiss_waiting
from .._core.thread import VirtualThread
from ..errors import DeadlockError
from ._server import LAST_GRACE

__all__ = ["Background"]

log = logging.getLogger("vthreads.serve")

BETWEEN_CHECKS, BETWEEN_BEATS = 0.1, 1.0
# Threads that the log describes.
MOST_SHOWN = 5


class Background:
    """The threads of the application on the carrier that creates this.

    Args:
        beat: called about once a second, on the carrier, while `end` waits. Must not park or raise.
    """

    def __init__(self, beat: Callable[[], object] | None = None) -> None:
        self._root = started_here()
        self._scheduler = scheduler = self._root._scheduler
        self._groups: list[BackgroundGroup] = [scheduler.background, scheduler.threads, scheduler.daemons]
        self._beat = beat
        self._seconds = self._until = inf
        self._waits = self._is_cancelled = self._has_ended = False
        # Descriptions of threads that were cancelled because their time was over, until the log has them.
        self._late: list[str] = []

    def stop(self, seconds: float) -> None:
        """Make `stopping()` true, and cancel the threads in `seconds`. Thread-safe; for signal handlers too."""
        for group in self._groups:
            group._stopping = True
            group._scope._cleanup_grace = LAST_GRACE
        self._seconds, self._until = seconds, time.monotonic() + seconds
        start_own_os_thread(self._watch)

    def cancel(self, reason: str) -> None:
        """Cancel the threads now: the process ends without a stop. Not a checkpoint."""
        self._has_ended = True
        for group in self._groups:
            group.cancel(reason)

    @property
    def seconds_left(self) -> float:
        """Seconds until the threads are cancelled; 0 after that, and without a stop."""
        return 0.0 if self._until == inf else max(self._until - time.monotonic(), 0.0)

    def end(self) -> None:
        """Wait until the threads have ended, after the server. A checkpoint; an interrupt cancels them."""
        self._waits = True
        try:
            # A thread of one group may start one in the other.
            while any(map(len, self._awaited())):
                for group in self._awaited():
                    # Idle workers of pools wait for work that can no longer come. The join would wait for them.
                    dismiss_waiting(self._scheduler)
                    self._join(group)
        finally:
            self._has_ended = True
            self._report_late()

    def _awaited(self) -> list[BackgroundGroup]:
        # Daemons do not keep a process, so their group, the last one, is left out.
        return self._groups[:2]

    def _join(self, group: BackgroundGroup) -> None:
        try:
            group.join(self._root)
        except DeadlockError:
            # The deadlock has cancelled the members. None could continue, for example a worker that waits for an item
            # of a queue.
            log.info("the threads of the group %r were cancelled: nothing could unpark them", group.name)

    # --- the time, on an OS thread

    def _watch(self) -> None:
        # A carrier would assume that an unknown OS thread may unpark its threads.
        own_os_threads.add(get_ident())
        try:
            beat_at = 0.0
            while not self._has_ended and (now := time.monotonic()) < self._until + LAST_GRACE:
                if self._waits and self._beat is not None and now >= beat_at:
                    beat_at = now + BETWEEN_BEATS
                    self._scheduler.post(self._beat)
                sleep(min(BETWEEN_CHECKS, self.seconds_left or BETWEEN_CHECKS))
                self._cancel_if_late()
        finally:
            own_os_threads.discard(get_ident())

    def _cancel_if_late(self) -> None:
        if not self._is_cancelled and not self.seconds_left:
            self._is_cancelled = True
            self._scheduler.post(self._cancel_late)
        # Do not wait for `end`, which reports too: a thread that ignores its cancellation delays it.
        self._report_late()

    def _report_late(self) -> None:
        left, self._late = self._late, []
        if left:
            shown = "; ".join(left[:MOST_SHOWN])
            log.warning(
                "threads beside the requests are cancelled, which did not end within %g s: %d: %s",
                self._seconds,
                len(left),
                shown,
            )

    def _cancel_late(self) -> None:
        """Cancel the threads, and note where they wait (called by the scheduler)."""
        threads = [thread for group in self._awaited() for thread in group]
        self._late = [_described(thread) for thread in threads]
        for group in self._groups:
            group.cancel("the server has stopped and the time of its threads is over")


def _described(thread: VirtualThread) -> str:
    waits = f" waits in {describe_wait(thread)}" if thread.state is State.PARKED else " runs"
    return f"{thread.name!r}{waits}"
