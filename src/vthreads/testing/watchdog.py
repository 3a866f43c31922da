"""Notices that a run goes nowhere: for some seconds of real time it passes no point and does not end.

A loop without a point inside, or a call that blocks the carrier, would keep an exploration for ever. An OS thread of
the runtime's own looks, and tells the run. Then something has to be raised where it is: on the main OS thread by a
signal, for which most calls that block return, and on others by an exception that Python raises between two bytecodes.
What can be left by neither is told on stderr at least.
"""

from __future__ import annotations

import ctypes
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from threading import main_thread
from time import monotonic
from types import FrameType
from typing import Any, Protocol

from .._core.originals import get_ident
from .._core.runtime import frames_of_os_threads
from ..signals import original_getsignal, original_signal
from ..ticker import Ticker
from .interleaving import Abandoned, Interleaving

__all__ = ["Watchdog"]

# Absent where there are no signals of this kind. That it serves here, too, is no conflict: who is preempted by it is a
# carrier, and an exploration by a carrier is made on another OS thread.
SIGURG: signal.Signals | None = getattr(signal, "SIGURG", None)

# Looks in the time that a run has between two points.
LOOKS = 4
LONGEST = 3600.0

# Modules whose functions wait for whoever debugs.
DEBUGGERS = ("bdb", "pdb", "pydevd", "_pydevd_bundle", "debugpy")

_raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
_raise_in.argtypes = [ctypes.c_ulong, ctypes.py_object]


class Run(Protocol):
    """What is watched."""

    interleaving: Interleaving

    def pinned(self, frame: FrameType | None) -> str:
        """Hear, on another OS thread, that the run does not leave `frame`: abandon it, and tell of it."""


class Watchdog:
    """Looks at one run at a time.

    Args:
        seconds: of real time that may pass from one point to the next.
    """

    def __init__(self, seconds: float) -> None:
        if not seconds > 0:
            raise ValueError(f"max_seconds={seconds!r}: it takes a number of seconds above 0")
        self._seconds = seconds
        self._run: Run | None = None
        # The run and how many points it had passed at the last look, and since when that is so.
        self._seen: tuple[Run, int] | None = None
        self._since = inf
        # What was told of it.
        self._told: str | None = None
        self._is_written = False
        self._ticker = Ticker(min(seconds, LONGEST) / LOOKS, self._look, rests=False)

    @contextmanager
    def awake(self) -> Iterator[Watchdog]:
        """While inside, it looks."""
        self._ticker.start()
        try:
            yield self
        finally:
            self._ticker.stop()

    @contextmanager
    def watching(self, run: Run) -> Iterator[None]:
        """While inside, `run` goes on, on this OS thread."""
        takes_signal = SIGURG is not None and _is_main() and not callable(original_getsignal(SIGURG))
        before = original_signal(SIGURG, self._handler) if takes_signal and SIGURG is not None else None
        self._run = run
        try:
            yield
        finally:
            self._run = None
            if takes_signal and SIGURG is not None and original_getsignal(SIGURG) == self._handler:
                original_signal(SIGURG, before)

    # --- on the OS thread that looks

    def _look(self) -> None:
        run = self._run
        if run is None:
            self._seen = None
            return
        seen = run, run.interleaving.passed
        if seen != self._seen:
            self._seen, self._since = seen, monotonic()
            self._told, self._is_written = None, False
        elif monotonic() - self._since >= self._seconds:
            self._end(run)

    def _end(self, run: Run) -> None:
        ident = run.interleaving.scheduler.ident
        # Asked first, since a run in which nobody runs ends as soon as it is told.
        somebody_runs = run.interleaving.scheduler.running is not None
        frame = frames_of_os_threads().get(ident)
        if _is_debugged(frame):
            self._seen = None
            return
        if self._told is None:
            self._told = run.pinned(frame)
        elif not self._is_written:
            self._is_written = True
            _print(f"vthreads.testing.explore cannot end this: {self._told}")
        if not somebody_runs or self._run is not run:
            return
        if SIGURG is not None and ident == main_thread().ident and original_getsignal(SIGURG) == self._handler:
            signal.pthread_kill(ident, SIGURG)
        else:
            _raise_in(ident, Abandoned)

    # --- on the OS thread of the run

    def _handler(self, signalnum: int, frame: FrameType | None) -> None:
        run = self._run
        if run is not None and self._seen == (run, run.interleaving.passed):
            raise Abandoned("the run has passed no point for too long")


def _is_main() -> bool:
    return get_ident() == main_thread().ident


def _is_debugged(frame: FrameType | None) -> bool:
    """Whether somebody looks at the run by a debugger, and takes the time that it takes."""
    while frame is not None:
        if str(frame.f_globals.get("__name__")).partition(".")[0] in DEBUGGERS:
            return True
        frame = frame.f_back
    return False


def _print(text: str) -> None:
    stream: Any = sys.stderr
    try:
        stream.write(text + "\n")
        stream.flush()
    except (OSError, ValueError, AttributeError):
        # Closed or broken: there is nowhere left to say so.
        pass
