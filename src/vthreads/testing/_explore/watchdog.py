"""Detect a run that hangs: it passes no point and does not end for some seconds of real time.

A loop without a point, or a call that blocks the carrier, would stop an exploration forever. A private OS thread checks
for that and notifies the run. Then an exception must be raised in the code that hangs: on the main OS thread by a
signal, which makes most blocking calls return, and on other OS threads by an exception that Python raises between two
bytecodes. If neither works, a message on stderr reports it.
"""

from __future__ import annotations

import ctypes
import signal
import sys
from collections.abc import Iterator
from math import inf
from threading import main_thread
from time import monotonic
from types import FrameType
from typing import Any, Protocol

from ..._calls.signals import original_getsignal, original_signal
from ..._core.arguments import checked_seconds
from ..._core.blocks import block
from ..._core.originals import get_ident
from ..._core.os_thread_kinds import frames_of_os_threads
from ..._os_threads.ticker import Ticker
from .interleaving import Abandoned, Interleaving

__all__ = ["Watchdog"]

# Not every platform has it. Preemption uses the same signal, but there is no conflict: it is for carriers, and an
# exploration that is started on a carrier runs on another OS thread.
SIGURG: signal.Signals | None = getattr(signal, "SIGURG", None)

# Number of checks within `seconds`.
LOOKS = 4
LONGEST = 3600.0

# Modules in which a debugger waits for its user.
DEBUGGERS = ("bdb", "pdb", "pydevd", "_pydevd_bundle", "debugpy")

_raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
_raise_in.argtypes = [ctypes.c_ulong, ctypes.py_object]


class Run(Protocol):
    """The run that is watched."""

    interleaving: Interleaving

    def pinned(self, frame: FrameType | None) -> str:
        """Handle, on another OS thread, that the run does not leave `frame`: abandon it and return a description."""


class Watchdog:
    """Watches one run at a time.

    Args:
        seconds: real time that may pass from one point to the next.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = checked_seconds(seconds, "max_seconds")
        if self._seconds <= 0:
            raise ValueError(f"max_seconds must be > 0 seconds, got {seconds!r}")
        self._run: Run | None = None
        # The run and its number of passed points at the last check, and the time since when these are unchanged.
        self._seen: tuple[Run, int] | None = None
        self._since = inf
        # The description of the run that hangs, once it was notified.
        self._description: str | None = None
        self._is_written = False
        self._ticker = Ticker(min(self._seconds, LONGEST) / LOOKS, self._look, rests=False)

    @block
    def awake(self) -> Iterator[Watchdog]:
        """Check regularly during the block."""
        self._ticker.start()
        try:
            yield self
        finally:
            self._ticker.stop()

    @block
    def watching(self, run: Run) -> Iterator[None]:
        """Watch `run` during the block, in which it runs on this OS thread."""
        takes_signal = SIGURG is not None and _is_main() and not callable(original_getsignal(SIGURG))
        before = original_signal(SIGURG, self._handler) if takes_signal and SIGURG is not None else None
        self._run = run
        try:
            yield
        finally:
            self._run = None
            if takes_signal and SIGURG is not None and original_getsignal(SIGURG) == self._handler:
                original_signal(SIGURG, before)

    # --- on the private OS thread

    def _look(self) -> None:
        run = self._run
        if run is None:
            self._seen = None
            return
        seen = run, run.interleaving.passed
        if seen != self._seen:
            self._seen, self._since = seen, monotonic()
            self._description, self._is_written = None, False
        elif monotonic() - self._since >= self._seconds:
            self._end(run)

    def _end(self, run: Run) -> None:
        ident = run.interleaving.scheduler.ident
        # Read this first: a run in which no thread runs ends as soon as it is notified.
        a_thread_runs = run.interleaving.scheduler.running is not None
        frame = frames_of_os_threads().get(ident)
        if _is_debugged(frame):
            self._seen = None
            return
        if self._description is None:
            self._description = run.pinned(frame)
        elif not self._is_written:
            self._is_written = True
            _print(f"vthreads.testing.explore cannot end this: {self._description}")
        if not a_thread_runs or self._run is not run:
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
    """Return whether a debugger has stopped the run, which may then take any time."""
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
        # stderr is closed or broken, so the message cannot be written anywhere.
        pass
