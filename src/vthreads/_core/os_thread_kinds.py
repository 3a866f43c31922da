"""The OS threads of the process, by ident, and the kinds of them that cannot unpark a virtual thread.

`threading` lists the OS threads that it has started; the interpreter lists the frames of all. A carrier is deadlocked
if none is left after subtracting the kinds of this module. This module does not depend on carriers.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from io import FileIO
from types import FrameType
from typing import Any

from .originals import get_ident

__all__ = [
    "ending_os_threads",
    "forking_os_threads",
    "frames_of_os_threads",
    "known_os_thread",
    "may_be_starting",
    "other_os_threads",
    "own_os_threads",
    "quiet_os_threads",
]

# OS threads of the runtime that only react to requests, by ident.
own_os_threads: set[int] = set()
# OS threads of a test runner, by ident: they outlive every test but unpark no virtual thread, so they do not count.
quiet_os_threads: set[int] = set()
# OS threads that have run their last Python code, by ident, while the interpreter still lists them.
ending_os_threads: set[int] = set()
# OS threads that are forking, by ident: `threading` updates itself in the child before the runtime does.
forking_os_threads: set[int] = set()

# Seconds in which an OS thread without a Python frame may still be about to get one.
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
    """Return whether an OS thread without a Python frame was started lately: perhaps by `_thread` or by C code.

    It has no frame until the system lets it run, which takes long on a busy machine. It is never reported by
    `threading`, so only the system can tell (Linux). A thread that is older has other work than Python code.
    """
    tasks = "/proc/self/task"
    try:
        numbers = os.listdir(tasks)
        if len(numbers) <= len(frames_of_os_threads()):
            return False
        return any(_age(f"{tasks}/{number}/stat") < STARTING_FOR for number in numbers)
    except (OSError, ValueError, IndexError):
        # Not Linux, or a thread has ended meanwhile.
        return False


def _age(status: str) -> float:
    """Return the seconds since the start of the OS thread with this file of its status."""
    with FileIO(status) as file:
        # The name, in parentheses, may contain anything. The start is the 20th field behind it, in ticks since boot.
        started = int(file.readall().rpartition(b")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf("SC_CLK_TCK")


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
