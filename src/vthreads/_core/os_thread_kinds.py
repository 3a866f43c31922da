"""The OS threads of the process, by ident, and the kinds of them that cannot unpark a virtual thread.

`threading` lists the OS threads that it has started; the interpreter lists the frames of all. A carrier is deadlocked
if none is left after subtracting the kinds of this module. This module does not depend on carriers.
"""

from __future__ import annotations

import gc
import sys
import threading
from types import FrameType
from typing import Any

from .originals import get_ident
from .os_thread_states import busy_os_threads

__all__ = [
    "ending_os_threads",
    "forking_os_threads",
    "frames_of_os_threads",
    "hidden_os_threads",
    "hide_os_thread",
    "known_os_thread",
    "may_be_starting",
    "other_os_threads",
    "own_os_threads",
    "quiet_os_threads",
]

# OS threads of the runtime that only react to requests, by ident.
own_os_threads: set[int] = set()
# Objects of OS threads of the runtime that run code of programs all the time, by ident. `threading.current_thread`
# returns them there, but `threading` does not list them.
hidden_os_threads: dict[int, threading.Thread] = {}
# OS threads of a test runner, by ident: they outlive every test but unpark no virtual thread, so they do not count.
quiet_os_threads: set[int] = set()
# OS threads that have run their last Python code, by ident, while the interpreter still lists them.
ending_os_threads: set[int] = set()
# OS threads that are forking, by ident: `threading` updates itself in the child before the runtime does.
forking_os_threads: set[int] = set()


def hide_os_thread(os_thread: threading.Thread) -> None:
    """Remove the calling OS thread from the lists of `threading`, which programs count and join."""
    hidden_os_threads[get_ident()] = os_thread
    threading._active.pop(get_ident(), None)  # type: ignore[attr-defined]  # not in the type stubs
    threading._dangling.discard(os_thread)  # type: ignore[attr-defined]  # likewise


# Seconds in which an OS thread may still be about to get its first Python frame. An older one that runs without a frame
# belongs to a C library, and would hide a deadlock for as long as it runs.
STARTING_FOR = 1.0


def other_os_threads() -> bool:
    """Return whether an OS thread of the program, other than the caller, exists that could unpark a virtual thread."""
    # A thread that was just started has no frame yet, but is in `_limbo`. One that ends has a frame, but is in neither.
    starting: dict[Any, Any] = threading._limbo  # type: ignore[attr-defined]  # not in the type stubs
    known: dict[int, Any] = threading._active  # type: ignore[attr-defined]  # likewise
    # Keep only the idents: the dict of frames would contain this frame, and so itself.
    alive = set(frames_of_os_threads())
    ending_os_threads.intersection_update(alive)
    over = ending_os_threads - known.keys()
    return bool(starting) or bool(alive - own_os_threads - quiet_os_threads - over - {get_ident()})


def may_be_starting() -> bool:
    """Return whether an OS thread was started lately and waits for a processor, if the system reports it.

    Until it runs it has no Python frame, and `threading` does not list it if `_thread` or C code has started it.
    """
    return any(age < STARTING_FOR for age in busy_os_threads())


def frames_of_os_threads() -> dict[int, FrameType]:
    """Return the innermost Python frame of each OS thread that has one, by ident.

    Python 3.11 holds a lock while it collects the frames. If the garbage collector ran Python code during that, an OS
    thread that ends then would wait for the lock while it holds the GIL: a deadlock of the process. So disable it.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        return sys._current_frames()
    finally:
        if collecting:
            gc.enable()


def known_os_thread() -> threading.Thread | None:
    """Return the object of the calling OS thread in `threading`, or None; does not create one."""
    known: dict[int, threading.Thread] = threading._active  # type: ignore[attr-defined]  # not in the type stubs
    return known.get(get_ident())
