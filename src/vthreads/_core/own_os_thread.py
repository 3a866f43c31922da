"""Private OS threads of the runtime, to which no signal is delivered.

Programs block a signal to wait for it (`sigwait`), or to keep it from a child. If a private OS thread did not block it,
the kernel would deliver the signal to that thread and end the process.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # has no type stubs
import signal
from _thread import start_new_thread
from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["signal_mask", "start_own_os_thread", "with_signal_mask"]

# Signals sent to the thread that causes a fault. If they were blocked, the process would end without `faulthandler`.
FAULTS = {"SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSEGV", "SIGSYS", "SIGTRAP"}
# The C function: that of `signal` converts each result to enum members, which is slow. Missing on Windows.
set_mask: Any = getattr(_signal, "pthread_sigmask", None)


def _all_but_faults() -> list[int]:
    faults = {int(getattr(signal, name)) for name in FAULTS if hasattr(signal, name)}
    return [int(number) for number in signal.valid_signals() if number not in faults]


SIGNALS = _all_but_faults()


def start_own_os_thread(function: Callable[..., object], args: tuple[Any, ...] = ()) -> None:
    """Start an OS thread that calls `function(*args)` with all signals blocked.

    Raises:
        RuntimeError: no OS thread can be started.
    """
    if set_mask is None:
        start_new_thread(function, args)
        return
    # The new thread inherits the mask of its starter. Signals that arrive meanwhile are delivered afterwards.
    before = set_mask(signal.SIG_BLOCK, SIGNALS)
    try:
        start_new_thread(function, args)
    finally:
        set_mask(signal.SIG_SETMASK, before)


def signal_mask() -> Iterable[int]:
    """Return the signals that the calling OS thread has blocked."""
    return set_mask(signal.SIG_BLOCK, ()) if set_mask is not None else ()


class with_signal_mask:  # noqa: N801 - used like a function: `with with_signal_mask(mask):`
    """Block exactly `mask` inside, on a private OS thread: for code of the user, and for its child processes.

    Not a generator: `contextlib` sets the traceback of an exception that is raised inside, which its class may refuse.
    """

    __slots__ = ("_mask",)

    def __init__(self, mask: Iterable[int]) -> None:
        self._mask = mask

    def __enter__(self) -> None:
        if set_mask is not None:
            set_mask(signal.SIG_SETMASK, self._mask)

    def __exit__(self, *_: object) -> None:
        if set_mask is not None:
            set_mask(signal.SIG_BLOCK, SIGNALS)
