"""What `os.read` and its like become.

A read is tried in a way that does not wait, `preadv2(RWF_NOWAIT)` where the kernel has it: that needs no O_NONBLOCK,
which belongs to the open file and would be seen by everybody who shares it. If there is nothing yet, the virtual thread
parks until there is; what is on a disk and not in the page cache is read on an OS thread. Where the flag is not
supported, readiness is asked first, then comes one read. A read of what another process may take in between could then
block the carrier: that is left with ttys; FIFOs have another way that does not wait.

In non-blocking mode, and on a plain OS thread, each is exactly the original.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Sequence
from operator import index
from typing import Any

from .._core.current import running
from .._core.engine import READ
from .._core.originals import close_fd
from .._core.thread import VirtualThread
from ..net.readiness import park_for_fd, wait_blocking
from ..offload import offload_abandonable
from ..os_calls import Limiter
from .kinds import Kind, kind_of

__all__ = ["HERE", "eventfd_read", "pread", "preadv", "read", "read_at", "read_now", "readv"]

original_read, original_readv, original_pread = os.read, os.readv, os.pread
original_preadv: Any = getattr(os, "preadv", None)
original_eventfd_read: Any = getattr(os, "eventfd_read", None)
splice: Any = getattr(os, "splice", None)

# "At the position of the file, which moves on": what preadv2 takes -1 for.
HERE = -1
NOWAIT: int = getattr(os, "RWF_NOWAIT", 0)
LOWEST_OFFSET = HERE if NOWAIT else 0
# Nothing there yet; the descriptor, or the kernel, does not know the flag.
NO_ANSWER = frozenset({errno.EAGAIN, errno.EOPNOTSUPP, errno.ENOSYS})

disk = Limiter("disk", 32)


def read(fd: int, length: int, /) -> bytes:
    """`os.read`. A checkpoint unless `fd` is non-blocking."""
    thread = running()
    if thread is None or (length := index(length)) <= 0 or not os.get_blocking(fd):
        return original_read(fd, length)
    thread.check()
    buffer = bytearray(length)
    return _filled(buffer, read_vector(thread, fd, [buffer]))


def readv(fd: int, buffers: Sequence[Any], /) -> int:
    """`os.readv`. A checkpoint unless `fd` is non-blocking."""
    thread = running()
    if thread is None or not os.get_blocking(fd):
        return original_readv(fd, buffers)
    thread.check()
    return read_vector(thread, fd, buffers)


def pread(fd: int, length: int, offset: int, /) -> bytes:
    """`os.pread`. A checkpoint."""
    thread = running()
    if thread is None or (length := index(length)) <= 0 or index(offset) < 0:
        return original_pread(fd, length, offset)
    thread.check()
    buffer = bytearray(length)
    return _filled(buffer, read_vector(thread, fd, [buffer], offset))


def preadv(fd: int, buffers: Sequence[Any], offset: int, flags: int = 0, /) -> int:
    """`os.preadv`. A checkpoint, unless its flags or the mode of `fd` say that it does not wait."""
    thread = running()
    if thread is None or flags & NOWAIT or index(offset) < LOWEST_OFFSET or not os.get_blocking(fd):
        return original_preadv(fd, buffers, offset, flags)
    thread.check()
    return read_vector(thread, fd, buffers, offset, flags)


def eventfd_read(fd: int) -> int:
    """`os.eventfd_read`. A checkpoint unless `fd` is non-blocking."""
    thread = running()
    if thread is None or not os.get_blocking(fd):
        return original_eventfd_read(fd)
    # Eight bytes, in the order of the machine.
    return memoryview(read(fd, 8)).cast("Q")[0]


def _filled(buffer: bytearray, count: int) -> bytes:
    return bytes(buffer) if count == len(buffer) else bytes(memoryview(buffer)[:count])


# --- one read, after the checkpoint


def read_vector(thread: VirtualThread, fd: int, buffers: Sequence[Any], offset: int = HERE, flags: int = 0) -> int:
    """Read into `buffers` from `fd`, which is in blocking mode; park until there is something. How much it was.

    Args:
        thread: the virtual thread that runs here; it has just been at a checkpoint.
        fd, buffers, offset, flags: as for `os.preadv`; `HERE` reads at the file's position and moves it.
    """
    kind = None
    while (count := read_now(fd, buffers, kind, offset, flags)) is None:
        kind = kind or kind_of(fd)
        if kind is Kind.DISK:
            return read_at(fd, buffers, offset, flags)
        park_for_fd(thread, fd, READ)
        thread.check()
    return count


def read_now(
    fd: int, buffers: Sequence[Any], kind: Kind | None = None, offset: int = HERE, flags: int = 0
) -> int | None:
    """Read into `buffers` what is there; None if there is nothing yet. `fd` is in blocking mode."""
    answered = False
    if NOWAIT:
        try:
            return original_preadv(fd, buffers, offset, flags | NOWAIT)
        except OSError as error:
            if error.errno not in NO_ANSWER:
                raise
            answered = error.errno == errno.EAGAIN
    kind = kind or kind_of(fd)
    if kind is Kind.DISK:
        return None
    if kind is Kind.MEMORY or not answered and wait_blocking(fd, READ, 0):
        try:
            return _read_ready(fd, kind, buffers, offset, flags)
        except BlockingIOError:
            # Somebody else was quicker.
            pass
    return None


def _read_ready(fd: int, kind: Kind, buffers: Sequence[Any], offset: int, flags: int) -> int:
    """Read from what seems ready."""
    if kind is Kind.FIFO and splice is not None and offset == HERE:
        return _read_fifo(fd, buffers)
    return original_readv(fd, buffers) if offset == HERE else original_preadv(fd, buffers, offset, flags)


def _read_fifo(fd: int, buffers: Sequence[Any]) -> int:
    """Read a FIFO that seems ready, without waiting: its data are moved into a pipe of our own, where they stay."""
    wanted = _size_of(buffers)
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        if not splice(fd, writer, wanted, flags=os.SPLICE_F_NONBLOCK):
            return 0
        return original_readv(reader, buffers)
    finally:
        close_fd(reader)
        close_fd(writer)


def read_at(fd: int, buffers: Sequence[Any], offset: int, flags: int = 0) -> int:
    """Read from a disk on an OS thread, into a buffer of its own: abandoned, it must not touch that of the caller.

    Nor the position of the file, which moves when the data are there. If somebody else moved it meanwhile, these data
    have been read already, and it is done again.
    """
    wanted = _size_of(buffers)
    while True:
        start = offset if offset != HERE else os.lseek(fd, 0, os.SEEK_CUR)
        # Page-aligned, as files opened with O_DIRECT want it.
        buffer = mmap.mmap(-1, max(wanted, 1))
        count = offload_abandonable(disk, original_preadv, None, fd, [memoryview(buffer)[:wanted]], start, flags)
        if offset != HERE:
            break
        if os.lseek(fd, 0, os.SEEK_CUR) == start:
            os.lseek(fd, start + count, os.SEEK_SET)
            break
    _scatter(memoryview(buffer)[:count], buffers)
    return count


def _size_of(buffers: Sequence[Any]) -> int:
    return sum(memoryview(buffer).nbytes for buffer in buffers)


def _scatter(data: memoryview, buffers: Sequence[Any]) -> None:
    for buffer in buffers:
        target = memoryview(buffer).cast("B")
        piece = data[: len(target)]
        target[: len(piece)] = piece
        data = data[len(piece) :]
