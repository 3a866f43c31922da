"""Classify descriptors by how a thread can wait for them.

Called only after a call that does not wait gave no answer, so a normal read or write does not pay for it.
"""

from __future__ import annotations

import os
import stat
from enum import Enum
from io import FileIO
from typing import Any

from ..._core.engine import compiled, supply
from ..._core.repeated import repeated_in

__all__ = ["Kind", "device_of_regular", "fstat", "is_in_memory", "kind_of", "status_of"]


class Kind(Enum):
    """How to wait for a descriptor.

    - DISK: no event reports readiness; a read may wait for the disk or the network.
    - MEMORY: never waits (or fails at once, like a directory).
    - FIFO (or pipe), TTY, SOCKET, POLLED: the poller reports readiness, but a write longer than the free room waits.
    """

    DISK = "disk"
    MEMORY = "memory"
    FIFO = "fifo"
    TTY = "tty"
    SOCKET = "socket"
    POLLED = "polled"


# File systems that use neither a disk nor a server, by their names on Linux.
MEMORY_FILE_SYSTEMS = frozenset(
    ["cgroup", "cgroup2", "configfs", "debugfs", "devtmpfs", "mqueue", "proc", "ramfs", "sysfs", "tmpfs", "tracefs"]
)

# The originals, saved before a test replaces them.
fstat, isatty, status_of = os.fstat, os.isatty, os.stat

# Results by device number. The file systems of a process rarely change, and a number is not reused soon.
_in_memory: dict[int, bool] = {}


@repeated_in("_calls/files/compiled/opening.pxi")
def kind_of(fd: int) -> Kind:
    """Return how to wait for `fd`."""
    device = device_of_regular(fd)
    if device >= 0:
        return Kind.MEMORY if is_in_memory(device) else Kind.DISK
    mode = fstat(fd).st_mode
    if stat.S_ISFIFO(mode):
        return Kind.FIFO
    if stat.S_ISSOCK(mode):
        return Kind.SOCKET
    if stat.S_ISCHR(mode):
        return Kind.TTY if isatty(fd) else Kind.POLLED
    if stat.S_ISBLK(mode):
        return Kind.DISK
    return Kind.MEMORY if stat.S_ISDIR(mode) else Kind.POLLED


@compiled
def device_of_regular(file: Any) -> int:
    """Return the device number of a regular file, by name or descriptor; -1 if it is another kind or not there."""
    try:
        status = status_of(file)
    except (OSError, TypeError, ValueError, OverflowError):
        return -1
    return status.st_dev if stat.S_ISREG(status.st_mode) else -1


@repeated_in("_calls/files/compiled/opening.pxi")
def is_in_memory(device: int) -> bool:
    """Return whether the file system with this device number uses neither a disk nor a server."""
    if device not in _in_memory:
        _in_memory[device] = _file_system_of(device) in MEMORY_FILE_SYSTEMS
    return _in_memory[device]


def _file_system_of(device: int) -> str | None:
    wanted = f"{os.major(device)}:{os.minor(device)}".encode()
    try:
        with FileIO("/proc/self/mountinfo") as file:
            table = file.readall()
    except OSError:
        # This platform has no such table, so assume that nothing is in memory.
        return None
    for line in table.splitlines():
        # Number, parent, device, root, place, options, any number of tags, "-", file system, …
        fields = line.split()
        if fields[2] == wanted:
            return fields[fields.index(b"-") + 1].decode("ascii", "replace")
    return None


supply(__name__, disk=Kind.DISK, kind_of=kind_of, in_memory=_in_memory)
