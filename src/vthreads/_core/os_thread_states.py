"""The OS threads of this process that the system runs, or is about to run, as Linux reports them.

On a busy machine an OS thread may have to wait for a processor, so that what it will do has not happened yet. Code that
asks whether anything can still come from outside counts such a thread. This module does not depend on virtual threads.
"""

from __future__ import annotations

import os
import time
from _thread import get_native_id
from collections.abc import Iterator
from io import FileIO

__all__ = ["busy_os_threads"]

TASKS = "/proc/self/task"
# The states in proc_pid_stat(5) of a thread that needs nothing but a processor or a disk.
BUSY = (b"R", b"D")
# The places behind the name, which is in parentheses and may contain anything: the state, and the start in ticks.
STATE, START = 0, 19

# The originals, saved before a test replaces them.
listdir, boot_time = os.listdir, time.clock_gettime


def busy_os_threads() -> Iterator[float]:
    """Yield the age in seconds of each OS thread but the caller that runs, or waits for a processor or a disk.

    Nothing where the system does not report it. Not a checkpoint; thread-safe.
    """
    try:
        others = set(listdir(TASKS)) - {str(get_native_id())}
    except OSError:
        return
    for other in others:
        fields = _fields_of(other)
        if fields and fields[STATE] in BUSY:
            yield boot_time(time.CLOCK_BOOTTIME) - int(fields[START]) / os.sysconf("SC_CLK_TCK")


def _fields_of(os_thread: str) -> list[bytes]:
    """Return what the system reports about an OS thread, from its state on; nothing if it has ended."""
    try:
        # Not `open`, which would offload its calls.
        with FileIO(f"{TASKS}/{os_thread}/stat") as file:
            return file.readall().rpartition(b")")[2].split()
    except OSError:
        return []
