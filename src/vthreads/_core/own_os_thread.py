"""OS threads of the runtime's own, to which no signal is delivered.

A signal that the program has blocked to wait for it (`sigwait`), or to keep it from a child, would otherwise be taken
by a thread that the program does not know of, and end the process.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # has no type stubs
import signal
from _thread import start_new_thread
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["signal_mask", "start_own_os_thread", "with_signal_mask"]

# What a fault sends to the thread that makes it: blocked, it would end the process without a word of `faulthandler`.
FAULTS = {"SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSEGV", "SIGSYS", "SIGTRAP"}
# Without the names that the module `signal` gives to the numbers in each answer, which takes long. Not on Windows.
set_mask: Any = getattr(_signal, "pthread_sigmask", None)


def _all_but_faults() -> list[int]:
    faults = {int(getattr(signal, name)) for name in FAULTS if hasattr(signal, name)}
    return [int(number) for number in signal.valid_signals() if number not in faults]


SIGNALS = _all_but_faults()


def start_own_os_thread(function: Callable[..., object], args: tuple[Any, ...] = ()) -> None:
    """Start an OS thread that calls `function(*args)` with all signals blocked.

    Raises:
        RuntimeError: none can be started.
    """
    if set_mask is None:
        start_new_thread(function, args)
        return
    # It begins with the mask of whoever starts it; what arrives meanwhile is delivered afterwards.
    before = set_mask(signal.SIG_BLOCK, SIGNALS)
    try:
        start_new_thread(function, args)
    finally:
        set_mask(signal.SIG_SETMASK, before)


def signal_mask() -> Iterable[int]:
    """The signals that the calling OS thread has blocked."""
    return set_mask(signal.SIG_BLOCK, ()) if set_mask is not None else ()


@contextmanager
def with_signal_mask(mask: Iterable[int]) -> Iterator[None]:
    """On an OS thread of the runtime's own: let `mask` be blocked inside, for the user's code and its children."""
    if set_mask is None:
        yield
        return
    set_mask(signal.SIG_SETMASK, mask)
    try:
        yield
    finally:
        set_mask(signal.SIG_BLOCK, SIGNALS)
