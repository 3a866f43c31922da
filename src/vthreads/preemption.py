"""Fairness on request: with `run(preempt=seconds)`, or `patch`, a virtual thread that computes for longer yields.

An OS thread of the runtime's own watches the main carrier. It simulates a signal, whose Python handler CPython calls
between two bytecodes of whatever runs there, and the handler yields; that SIGURG serves this is Go's idea. A thread is
left alone in the midst of the runtime's own code, of a finalizer, of an import, and of whatever gives something back,
and is asked again a little later. CPython calls handlers inside some C functions, too, which may hold a lock of their
own there, as a flush does: a thread yields where a function begins or a loop goes round, since nothing is called there.
Nothing is raised in it: cancellation still comes at checkpoints.

What cannot be preempted: a C function, and carriers other than the main one. What can:
code that is held together only by the fact that virtual threads switch at checkpoints.
"""

from __future__ import annotations

import signal
from functools import partial
from math import inf, nan
from opcode import opmap
from types import FrameType
from typing import Any

from ._core.engine import Scheduler, State
from ._core.originals import get_ident, interrupt_main
from ._core.runtime import after_fork_hooks, is_main_carrier, preempt_hooks, start_hooks, stop_hooks
from ._core.spawn_site import INSIDE, PACKAGE
from .signals import original_getsignal, original_signal
from .ticker import Ticker

__all__ = ["preempt"]

# Absent where there are no signals of this kind, and then there is no preemption.
SIGURG: signal.Signals | None = getattr(signal, "SIGURG", None)

# Functions of this package that call the user's with nothing half done: what they call may be preempted.
ENTRIES = {
    ("vthreads._core.engine.reference", "_carry"),
    ("vthreads._core.engine.states", "call_in_a_frame"),
    ("vthreads._core.thread", "run"),
    ("vthreads._core.runtime", "run"),
    ("vthreads.combinators", "contend"),
    ("vthreads.patching.threads", "_live"),
    ("vthreads.cli", "main"),
    ("vthreads.cli.run", "main"),
    ("vthreads.cli.run", "execute"),
    ("vthreads.cli.run", "_root"),
}
# Python code that runs in the midst of other code, since weak references call it, or while the interpreter's lock of
# imports is held, which knows OS threads only.
LEFT_ALONE = ("weakref", "_weakrefset", "importlib._bootstrap", "importlib._bootstrap_external")
# The instructions at which CPython looks for signals, and that call nothing. At a call it looks when that has returned,
# and C code may look in the midst of it.
BETWEEN_CALLS = {code for name, code in opmap.items() if name == "RESUME" or "JUMP_BACKWARD" in name}


class _Preemption:
    """The one preemption of this process: the main carrier's."""

    def __init__(self) -> None:
        self.scheduler: Scheduler | None = None
        self.ticker: Ticker | None = None
        # What the user had for SIGURG.
        self.previous: Any = None
        # The end of the slice at the last look, and of the one that has had its time. Switches would not do: who is
        # called by the running thread, as its children and the handlers of signals are, runs in the same slice.
        self.seen = self.due = nan


state = _Preemption()


def preempt(scheduler: Scheduler, seconds: float) -> None:
    """Let nobody run on `scheduler` for much longer than `seconds` while others are ready; see `run` for errors."""
    if not 0 < seconds < inf:
        raise ValueError(f"preempt={seconds!r}: it takes a number of seconds above 0")
    if SIGURG is None or not is_main_carrier(scheduler):
        raise RuntimeError(
            f"preempt={seconds!r}: only the main OS thread of a POSIX system can be preempted; "
            "call run() there, or leave preempt out"
        )
    # It may have another time already.
    _stopping(scheduler)
    handler = original_getsignal(SIGURG)
    if callable(handler):
        raise RuntimeError(f"preempt={seconds!r}: SIGURG serves to preempt, and has the handler {handler!r} already")
    state.previous = handler
    state.ticker = Ticker(seconds / 2, _look)
    _take(scheduler)
    state.ticker.start()


def _take(scheduler: Scheduler) -> None:
    assert SIGURG is not None
    state.scheduler = scheduler
    state.seen = state.due = nan
    original_signal(SIGURG, _handler)


def _stopping(scheduler: Scheduler) -> None:
    if scheduler is state.scheduler and state.ticker is not None:
        state.ticker.stop()
        _give_back()
        state.scheduler = state.ticker = None


def _give_back() -> None:
    """SIGURG is the user's again, unless the user has taken it already."""
    assert SIGURG is not None
    if original_getsignal(SIGURG) is _handler:
        original_signal(SIGURG, state.previous)


def _forked() -> None:
    # Before others look for handlers of the user's, as they do when a carrier starts.
    if state.scheduler is not None:
        _give_back()


def _started(scheduler: Scheduler, patch: bool) -> None:
    """In the child of a fork the preemption goes on."""
    if state.scheduler is not None and is_main_carrier(scheduler):
        _take(scheduler)


preempt_hooks.append(preempt)
start_hooks.append(_started)
stop_hooks.append(_stopping)
after_fork_hooks.append(_forked)


# --- on the OS thread that watches


def _look() -> None:
    """Interrupt the main carrier if nobody's turn has begun since the last look but one."""
    scheduler = state.scheduler
    if scheduler is None or scheduler.running is None:
        state.seen = nan
        return
    slice_end = scheduler.slice_end
    if state.seen != slice_end:
        state.seen = slice_end
        return
    state.due = slice_end
    if SIGURG is not None and original_getsignal(SIGURG) is _handler:
        interrupt_main(SIGURG)


# --- on the main OS thread


def _handler(signalnum: int, frame: FrameType | None) -> None:
    scheduler = state.scheduler
    if scheduler is None or get_ident() != scheduler.ident or scheduler.slice_end != state.due:
        # It is over, or somebody else's turn has begun meanwhile.
        return
    thread = scheduler.running
    if thread is None or thread.state is not State.RUNNING or thread._deferred:
        return
    if frame is None or not _may_yield(frame):
        return
    if frame.f_code.co_code[frame.f_lasti] in BETWEEN_CALLS:
        scheduler.yield_now()
        return
    # Ask again at once: the watch comes at a call each time, if that lets go of the GIL. Not by a call in here, after
    # which CPython would look, and find the runtime's own code.
    assert SIGURG is not None
    for _ in iter(partial(interrupt_main, SIGURG), None):
        pass


def _may_yield(innermost: FrameType) -> bool:
    """Whether all that runs from `innermost` on is the user's, with nothing of others half done."""
    frame: FrameType | None = innermost
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        name = frame.f_code.co_name
        if module in LEFT_ALONE or name == "__del__":
            return False
        if (module.startswith(INSIDE) or module == PACKAGE) and (module, name) not in ENTRIES:
            return False
        frame = frame.f_back
    return True
