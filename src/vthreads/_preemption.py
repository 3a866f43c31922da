"""Optional fairness: with `run(preempt=seconds)`, or `patch`, a virtual thread that computes for longer yields.

A private OS thread watches the main carrier and simulates a signal. CPython calls its Python handler between two
bytecodes of the running code, and the handler yields. Using SIGURG for this is Go's idea. The handler does not yield
inside the runtime's own code, a finalizer, an import, or a call that gives something back, but retries a little later.
CPython also calls handlers inside some C functions, which may hold a lock there (a flush does). So a thread yields only
at the start of a function or at a backward jump, where no C function runs. The handler raises nothing: cancellation is
still raised at checkpoints.

Not preempted: C functions, and carriers other than the main one, so a run with several carriers refuses it. Code that
relies on switches happening only at checkpoints can be interrupted by preemption.
"""

from __future__ import annotations

import signal
from functools import partial
from math import nan
from opcode import opmap
from types import FrameType
from typing import Any

from ._calls.signals import original_getsignal, original_signal
from ._core.carrier import is_main_carrier
from ._core.engine import Scheduler, State
from ._core.originals import get_ident, interrupt_main
from ._core.participants import Participant, participate
from ._core.spawn_site import ENTRIES, INSIDE, PACKAGE
from ._os_threads.ticker import Ticker

__all__ = ["preempt"]

# Not every platform has this signal; without it there is no preemption.
SIGURG: signal.Signals | None = getattr(signal, "SIGURG", None)

# Modules whose Python code runs inside other code: callbacks of weak references, and imports, which hold an interpreter
# lock that distinguishes OS threads only.
LEFT_ALONE = ("weakref", "_weakrefset", "importlib._bootstrap", "importlib._bootstrap_external")
# The instructions at which CPython checks for signals and that call nothing. At a call it checks after the return, and
# C code may check in the middle of its call.
BETWEEN_CALLS = {code for name, code in opmap.items() if name == "RESUME" or "JUMP_BACKWARD" in name}


class _Preemption:
    """The preemption of the main carrier; there is one per process."""

    def __init__(self) -> None:
        self.scheduler: Scheduler | None = None
        self.ticker: Ticker | None = None
        # The previous handler of SIGURG.
        self.previous: Any = None
        # The end of the time slice at the last check, and of the slice that is over. A count of switches would not do:
        # threads that the running thread starts directly (children, signal handlers) run in the same slice.
        self.seen = self.due = nan


state = _Preemption()


def preempt(scheduler: Scheduler, seconds: float) -> None:
    """Make threads on `scheduler` yield after `seconds` if others are ready; see `run` for errors."""
    if scheduler.placement is not None:
        raise RuntimeError(
            f"preempt={seconds!r} in a run with several carriers: only threads of the main OS thread can be preempted; "
            "use 1 carrier"
        )
    if SIGURG is None or not is_main_carrier(scheduler):
        raise RuntimeError(
            f"preempt={seconds!r}: only the main OS thread of a POSIX system can be preempted; "
            "call run() there, or leave preempt out"
        )
    # End an earlier preemption with another time.
    _stopping(scheduler)
    handler = original_getsignal(SIGURG)
    if callable(handler):
        raise RuntimeError(f"preempt={seconds!r}: SIGURG is needed for it, but has the handler {handler!r}; remove it")
    state.previous = handler
    state.ticker = Ticker(seconds / 2, _check_slice)
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
    """Restore the user's handler of SIGURG, unless the user has set another one meanwhile."""
    assert SIGURG is not None
    if original_getsignal(SIGURG) is _handler:
        original_signal(SIGURG, state.previous)


def _forked() -> None:
    # Do this before the start of a carrier, which looks for handlers of the user.
    if state.scheduler is not None:
        _give_back()


def _started(scheduler: Scheduler, patch: bool) -> None:
    """Continue the preemption in the child of a fork."""
    if state.scheduler is not None and is_main_carrier(scheduler):
        _take(scheduler)


participate(__name__, Participant(started=_started, stopping=_stopping, forked=_forked, preempting=preempt))


# --- on the private OS thread


def _check_slice() -> None:
    """Interrupt the main carrier if the same time slice has lasted for two checks."""
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
        # Preemption has ended, or another thread's slice has begun meanwhile.
        return
    thread = scheduler.running
    if thread is None or thread.state is not State.RUNNING or thread._deferred:
        return
    if frame is None or not _may_yield(frame):
        return
    if frame.f_code.co_code[frame.f_lasti] in BETWEEN_CALLS:
        scheduler._yield_now()
        return
    # Interrupt again at once: if the thread calls a function that releases the GIL in a loop, each later interrupt of
    # the private OS thread would hit that call too. Use `iter`, not a Python call: after a call CPython would check for
    # signals, inside this handler.
    assert SIGURG is not None
    for _ in iter(partial(interrupt_main, SIGURG), None):
        pass


def _may_yield(innermost: FrameType) -> bool:
    """Return whether all code from `innermost` outwards is the user's, and no foreign code is in the middle of it."""
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
