"""An OS thread of the runtime's own that looks at the carriers from time to time.

It runs only while there is a carrier, unless it is told otherwise, does not keep a deadlock from being seen, and is not
there for `threading`. Nothing here knows what is looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ._core.current import carriers
from ._core.engine import Scheduler
from ._core.originals import LockType, allocate_lock, get_ident
from ._core.own_os_thread import start_own_os_thread
from ._core.runtime import after_fork_hooks, ending_os_threads, own_os_threads, start_hooks, stop_hooks

__all__ = ["Ticker"]


class Ticker:
    """Calls `tick()` every `seconds`, from `start()` until `stop()`, while there is a carrier.

    Args:
        seconds: from the end of a call to the beginning of the next.
        tick: must not block. It runs on an OS thread of which nobody knows: what it raises ends that thread.
        rests: whether that OS thread ends with the last carrier, and another one begins with the next; who starts
            carriers all the time, and stops the ticking in the end, does without.
    """

    def __init__(self, seconds: float, tick: Callable[[], object], *, rests: bool = True) -> None:
        self._seconds = seconds
        self._tick = tick
        self._rests = rests
        # Held by whoever ticks or stops the ticking.
        self._ticking = allocate_lock()
        # Released to end the OS thread that waits for it; None without one.
        self._end: LockType | None = None

    def start(self) -> None:
        """Begin, or begin with the first carrier. Not a checkpoint; thread-safe."""
        _started[self] = None
        if carriers or not self._rests:
            self._run()

    def stop(self) -> None:
        """Tick no more; a tick under way is waited for. Not a checkpoint; thread-safe."""
        _started.pop(self, None)
        self._pause()

    def _run(self) -> None:
        if self._end is not None:
            return
        self._end = allocate_lock()
        self._end.acquire()
        is_known = allocate_lock()
        is_known.acquire()
        start_own_os_thread(self._live, (self._end, is_known))
        # A carrier that saw an unknown OS thread would wait for it instead of seeing a deadlock.
        is_known.acquire()

    def _pause(self) -> None:
        end, self._end = self._end, None
        if end is not None:
            with self._ticking:
                end.release()

    def _live(self, end: Any, is_known: Any) -> None:
        own_os_threads.add(get_ident())
        # Idents are given out again.
        ending_os_threads.discard(get_ident())
        is_known.release()
        try:
            while not end.acquire(True, self._seconds):
                with self._ticking:
                    if self._end is end:
                        self._tick()
        finally:
            # A carrier may see it until it has really ended.
            ending_os_threads.add(get_ident())
            own_os_threads.discard(get_ident())

    def _forget(self) -> None:
        """In the child of a fork the OS thread is not there, and it may have been ticking."""
        self._ticking = allocate_lock()
        self._end = None


_started: dict[Ticker, None] = {}


def _with_first_carrier(scheduler: Scheduler, patch: bool) -> None:
    for ticker in list(_started):
        ticker._run()


def _with_last_carrier(scheduler: Scheduler) -> None:
    if set(carriers) <= {scheduler.ident}:
        for ticker in list(_started):
            if ticker._rests:
                ticker._pause()


def _forked() -> None:
    for ticker in list(_started):
        ticker._forget()


start_hooks.append(_with_first_carrier)
stop_hooks.append(_with_last_carrier)
after_fork_hooks.append(_forked)
