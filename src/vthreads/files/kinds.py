"""What a descriptor is, as far as waiting for it goes.

Asked only where a call that does not wait has given no answer, so that the usual read and write do without it.
"""

from __future__ import annotations

import io
import os
import stat
from enum import Enum

__all__ = ["Kind", "fstat", "is_in_memory", "kind_of", "status_of"]


class Kind(Enum):
    """How to wait.

    - DISK: nothing tells when it is ready; a read may wait for the disk or the network.
    - MEMORY: it never waits (or fails at once, as a directory does).
    - FIFO (or pipe), TTY, SOCKET, POLLED: it tells when it is ready; but a longer write waits all the same.
    """

    DISK = "disk"
    MEMORY = "memory"
    FIFO = "fifo"
    TTY = "tty"
    SOCKET = "socket"
    POLLED = "polled"


# File systems without a disk or a server behind them, by the names that Linux has for them.
MEMORY_FILE_SYSTEMS = frozenset(
    ["cgroup", "cgroup2", "configfs", "debugfs", "devtmpfs", "mqueue", "proc", "ramfs", "sysfs", "tmpfs", "tracefs"]
)

# The originals, whatever a test puts in their place.
fstat, isatty, status_of = os.fstat, os.isatty, os.stat

# The answer by device number; the file systems of a process rarely change, and a number is not soon given out again.
_in_memory: dict[int, bool] = {}


def kind_of(fd: int) -> Kind:
    """Tell how to wait for `fd`."""
    status = fstat(fd)
    mode = status.st_mode
    if stat.S_ISREG(mode):
        return Kind.MEMORY if is_in_memory(status.st_dev) else Kind.DISK
    if stat.S_ISFIFO(mode):
        return Kind.FIFO
    if stat.S_ISSOCK(mode):
        return Kind.SOCKET
    if stat.S_ISCHR(mode):
        return Kind.TTY if isatty(fd) else Kind.POLLED
    if stat.S_ISBLK(mode):
        return Kind.DISK
    return Kind.MEMORY if stat.S_ISDIR(mode) else Kind.POLLED


def is_in_memory(device: int) -> bool:
    """Whether the file system with this number has neither a disk nor a server behind it."""
    if device not in _in_memory:
        _in_memory[device] = _file_system_of(device) in MEMORY_FILE_SYSTEMS
    return _in_memory[device]


def _file_system_of(device: int) -> str | None:
    wanted = f"{os.major(device)}:{os.minor(device)}".encode()
    try:
        with io.FileIO("/proc/self/mountinfo") as file:
            table = file.readall()
    except OSError:
        # No such table on this platform: nothing is known to be in memory.
        return None
    for line in table.splitlines():
        # Number, parent, device, root, place, options, any number of tags, "-", file system, …
        fields = line.split()
        if fields[2] == wanted:
            return fields[fields.index(b"-") + 1].decode("ascii", "replace")
    return None
