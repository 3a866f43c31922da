"""A private OS thread that calls a function at regular intervals.

It runs only while there is a carrier, unless `rests` is false. It is invisible to `threading`, and does not count when
a carrier checks for a deadlock. This module does not depend on what the function does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._core.current import carriers
from .._core.engine import Scheduler
from .._core.originals import LockType, allocate_lock, get_ident
from .._core.os_thread_kinds import ending_os_threads, own_os_threads
from .._core.own_os_thread import start_own_os_thread
from .._core.participants import Participant, participate

__all__ = ["Ticker"]


class Ticker:
    """Calls `tick()` every `seconds`, from `start()` until `stop()`, while there is a carrier.

    Args:
        seconds: time from the end of a call to the start of the next.
        tick: must not block, because `stop` waits for its end. An exception ends the OS thread, and nothing reports it.
        rests: whether the OS thread ends with the last carrier, and a new one starts with the next carrier. False for a
            program that starts carriers all the time and stops the ticker itself.
    """

    def __init__(self, seconds: float, tick: Callable[[], object], *, rests: bool = True) -> None:
        self._seconds = seconds
        self._tick = tick
        self._rests = rests
        # Held during a tick, and by a thread that stops the ticker.
        self._ticking = allocate_lock()
        # Released to end the OS thread, which waits for it; None if there is no OS thread.
        self._end: LockType | None = None

    def start(self) -> None:
        """Start ticking, now or with the first carrier. Not a checkpoint; thread-safe."""
        _started[self] = None
        if carriers or not self._rests:
            self._run()

    def stop(self) -> None:
        """Stop ticking; wait for a tick in progress. Not a checkpoint; thread-safe."""
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
        # Wait until the OS thread is registered as our own. A carrier that sees an unknown OS thread assumes that it
        # could unpark something, and would wait instead of reporting a deadlock.
        is_known.acquire()

    def _pause(self) -> None:
        end, self._end = self._end, None
        if end is not None:
            with self._ticking:
                end.release()

    def _live(self, end: Any, is_known: Any) -> None:
        own_os_threads.add(get_ident())
        # An OS thread with the same ident may have ended before: idents are reused.
        ending_os_threads.discard(get_ident())
        is_known.release()
        try:
            while not end.acquire(True, self._seconds):
                with self._ticking:
                    if self._end is end:
                        self._tick()
        finally:
            # Other threads see this OS thread until it has ended in C, so keep it marked until then.
            ending_os_threads.add(get_ident())
            own_os_threads.discard(get_ident())

    def _forget(self) -> None:
        """Reset in the child of a fork: the OS thread does not exist there, and may have held the lock."""
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


participate(__name__, Participant(started=_with_first_carrier, stopping=_with_last_carrier, forked=_forked))
