"""Automatic dumps: on a signal, and with a deadlock.

Environment variables enable them without a change of the program; they are read when the first carrier starts.
`VTHREADS_DEBUG=1`: serve requests (of `python -m vthreads ps` and similar commands), and add the whole tree to a
`DeadlockError`. `VTHREADS_DUMP_SIGNAL=SIGUSR1`: `dump_on_signal`. `VTHREADS_DUMP_ON_FATAL=1`: `dump_on_fatal_error`.
`VTHREADS_STALLS=0.1`: `watch_stalls`.
This module is imported with the package; the modules that it needs are imported at their first use.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

from .._calls.signals import prompt_handlers, set_handler
from .._core.carrier import is_main_carrier
from .._core.engine import Scheduler
from .._core.inner_imports import importing_between_switches
from .._core.originals import write_fd
from .._core.participants import Participant, participate
from .._core.spawn_site import is_own_frame
from ._dump import dump

__all__ = ["dump_on_deadlock", "dump_on_signal"]


STDERR = 2

# Seconds until the next attempt, if another OS thread is importing the module.
LOADING = 0.05


class _Requests:
    """The dumps that were requested."""

    tree_on_deadlock = False
    environment_read = False


# --- on a signal


def dump_on_signal(signalnum: int = signal.SIGUSR1) -> None:
    """Write `vthreads.dump()` to stderr whenever signal `signalnum` comes. Not a checkpoint; on the main thread only.

    The dump is written when the main OS thread next runs Python code or waits in a system call. For a carrier that is
    blocked in C, use `python -m vthreads dump`, which works from outside. The handler does not count as one that could
    unpark a thread, so deadlocks are still detected.

    Raises:
        ValueError: not called on the main thread, or there is no such signal.
    """
    # The handler may interrupt any code, also an import of the same modules. So import them now, and not there.
    _load_dump()
    set_handler(signalnum, _write_dump)


def _load_dump() -> None:
    """Import what `dump` needs, where an import may wait."""
    import json  # noqa: F401  # imported for `dump`

    from . import _snapshots as snapshots  # noqa: F401  # likewise


def _write_dump(signalnum: int, frame: FrameType | None) -> None:
    try:
        text = dump()
    except Exception as error:  # noqa: BLE001  # written instead: the code that the signal interrupts must not get it
        text = f"the virtual threads could not be read: {error!r}\n"
    if is_own_frame(frame):
        # The signal has interrupted the runtime's own code, perhaps half-way into a wait. A stream written in Python
        # may park there.
        _write_at_once(text)
        return
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except RuntimeError:
        # The signal interrupted a write to the same stream.
        _write_at_once(text)


def _write_at_once(text: str) -> None:
    left = text.encode(errors="backslashreplace")
    while left:
        left = left[write_fd(STDERR, left) :]


prompt_handlers.append(_write_dump)


# --- with a deadlock


def dump_on_deadlock(wanted: bool = True) -> None:
    """Add the whole tree, with all stacks, to every `DeadlockError` as a note. Not a checkpoint; thread-safe."""
    if wanted:
        # A deadlock is found between two switches, where an import must not wait.
        _load_dump()
    _Requests.tree_on_deadlock = wanted


def _note_of_deadlock(scheduler: Scheduler) -> str:
    try:
        with importing_between_switches():
            if _Requests.tree_on_deadlock:
                return dump()
            from ._snapshots import circle_of
            from ._text import describe_circle

            return "\n".join(describe_circle(circle_of(scheduler)))
    except Exception as error:  # noqa: BLE001  # a note instead: the DeadlockError itself must be raised
        return f"the threads could not be read: {type(error).__name__}: {error}"


# --- with a circle of locks


def _watch_locks(scheduler: Scheduler) -> None:
    scheduler.when_contended = _look_at_contended


def _look_at_contended() -> float:
    with importing_between_switches():
        # Imported at the first wait for a lock.
        try:
            from ._lock_circles import look_at_contended
        except RuntimeError:
            # Another thread is importing it, and code between two switches must not wait. Try again later.
            return LOADING
        return look_at_contended()


# --- environment variables


def _read_environment(scheduler: Scheduler) -> None:
    if _Requests.environment_read or not is_main_carrier(scheduler):
        # Only the main thread can set a handler.
        return
    _Requests.environment_read = True
    if _is_requested("VTHREADS_DUMP_ON_FATAL"):
        from ._fatal import dump_on_fatal_error

        dump_on_fatal_error()
    if _is_requested("VTHREADS_DEBUG"):
        from ._server import serve

        dump_on_deadlock()
        serve()
    name = os.environ.get("VTHREADS_DUMP_SIGNAL")
    if name:
        dump_on_signal(_signal_named(name))


def _is_requested(name: str) -> bool:
    return os.environ.get(name, "0") not in ("", "0")


def _signal_named(name: str) -> int:
    try:
        return signal.Signals[name]
    except KeyError:
        raise ValueError(f"VTHREADS_DUMP_SIGNAL={name!r}: there is no such signal; use a name like SIGUSR1") from None


def _started(scheduler: Scheduler, patch: bool) -> None:
    _watch_locks(scheduler)
    seconds = os.environ.get("VTHREADS_STALLS")
    if seconds:
        from ._stalls import watch_as_asked

        watch_as_asked(seconds)
    _read_environment(scheduler)


participate(__name__, Participant(started=_started, deadlock_note=_note_of_deadlock))
