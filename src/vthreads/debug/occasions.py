"""Dumps that nobody calls for by hand: on a signal, and with a deadlock.

Environment variables ask for them without a change of the program; they are read when the first carrier starts.
`VTHREADS_DEBUG=1`: serve the process (`python -m vthreads ps` and its like), and add the whole tree to a
`DeadlockError`. `VTHREADS_DUMP_SIGNAL=SIGUSR1`: `dump_on_signal`. `VTHREADS_DUMP_ON_FATAL=1`: `dump_on_fatal_error`.
Loaded with the package, so what this needs is not.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType

from .._core.engine import Scheduler
from .._core.originals import write_fd
from .._core.runtime import deadlock_notes, start_hooks
from .._core.spawn_site import is_own_frame
from ..signals import prompt_handlers, set_handler
from .dumps import dump

__all__ = ["dump_on_deadlock", "dump_on_signal"]


STDERR = 2


class _Wishes:
    """What was asked for."""

    tree_on_deadlock = False
    environment_read = False


# --- on a signal


def dump_on_signal(signalnum: int = signal.SIGUSR1) -> None:
    """Write `vthreads.dump()` to stderr whenever signal `signalnum` comes. Not a checkpoint; on the main thread only.

    The signal is dealt with when the main OS thread next runs Python code or waits in a system call, whatever runs
    there; a carrier that is stuck in C is looked into from outside (`python -m vthreads dump`). Such a handler does not
    keep a deadlock from being found.

    Raises:
        ValueError: not called on the main thread, or there is no such signal.
    """
    # Imports are not for the midst of whatever a signal interrupts.
    import json  # noqa: F401  # for `dump`

    from . import snapshots, text  # noqa: F401  # likewise

    set_handler(signalnum, _write_dump)


def _write_dump(signalnum: int, frame: FrameType | None) -> None:
    try:
        text = dump()
    except Exception as error:  # noqa: BLE001  # told instead: the code that the signal interrupts has no part in it
        text = f"the virtual threads could not be looked at: {error!r}\n"
    if is_own_frame(frame):
        # The runtime's own code cannot be parked, which a stream written in Python may do.
        _write_at_once(text)
        return
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except RuntimeError:
        # It interrupts a write to the same stream.
        _write_at_once(text)


def _write_at_once(text: str) -> None:
    left = text.encode(errors="backslashreplace")
    while left:
        left = left[write_fd(STDERR, left) :]


prompt_handlers.append(_write_dump)


# --- with a deadlock


def dump_on_deadlock(wanted: bool = True) -> None:
    """Add the whole tree, with all stacks, to every `DeadlockError` as a note. Not a checkpoint; thread-safe."""
    _Wishes.tree_on_deadlock = wanted


def _note_of_deadlock(scheduler: Scheduler) -> str:
    try:
        if _Wishes.tree_on_deadlock:
            return dump()
        from .snapshots import tree_of
        from .text import describe_cycle, lock_cycle

        return "\n".join(describe_cycle(lock_cycle(tree_of(scheduler, False))))
    except Exception as error:  # noqa: BLE001  # told in its place: the deadlock itself has to come out
        return f"the threads could not be looked at: {type(error).__name__}: {error}"


deadlock_notes.append(_note_of_deadlock)


# --- as the environment says


def _read_environment(scheduler: Scheduler, patch: bool) -> None:
    if _Wishes.environment_read or threading.current_thread() is not threading.main_thread():
        # Only the main thread can set a handler.
        return
    _Wishes.environment_read = True
    if _is_wished("VTHREADS_DUMP_ON_FATAL"):
        from .fatal import dump_on_fatal_error

        dump_on_fatal_error()
    if _is_wished("VTHREADS_DEBUG"):
        from .serving import serve

        dump_on_deadlock()
        serve()
    name = os.environ.get("VTHREADS_DUMP_SIGNAL")
    if name:
        dump_on_signal(_signal_named(name))


def _is_wished(name: str) -> bool:
    return os.environ.get(name, "0") not in ("", "0")


def _signal_named(name: str) -> int:
    try:
        return signal.Signals[name]
    except KeyError:
        raise ValueError(f"VTHREADS_DUMP_SIGNAL={name!r}: there is no such signal; give a name like SIGUSR1") from None


start_hooks.append(_read_environment)
