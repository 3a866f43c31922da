"""Replacements for `os.read` and similar calls.

A read is first tried without waiting, by `preadv2(RWF_NOWAIT)` where the kernel has it. The flag is for one call, so
O_NONBLOCK is not needed, which belongs to the open file and is visible to everyone who shares it. If there is no data
yet, the virtual thread parks; data of a disk that are not in the page cache are read on an OS thread. Where the flag is
not supported, readiness is checked first and one read follows. If another process took the data in between, that read
would block the carrier. This risk remains for ttys; for FIFOs, `splice` does not wait.

In non-blocking mode, and on a plain OS thread, each call is exactly the original.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Sequence
from operator import index
from typing import Any

from ..._core.current import running
from ..._core.engine import READ, compiled, supply
from ..._core.originals import close_fd
from ..._core.repeated import repeated_in
from ..._core.thread import VirtualThread
from ..._os_threads.calls import Limiter
from ..._os_threads.offload import offload_abandonable
from ..net.readiness import park_for_fd, park_for_library, refuse_inside_scheduler, some_library, wait_blocking
from .kinds import Kind, fstat, kind_of

__all__ = [
    "HERE",
    "eventfd_read",
    "park_until_ready",
    "pread",
    "preadv",
    "read",
    "read_at",
    "read_now",
    "readv",
    "rest_in_cache",
]

original_read, original_readv, original_pread = os.read, os.readv, os.pread
original_preadv: Any = getattr(os, "preadv", None)
original_eventfd_read: Any = getattr(os, "eventfd_read", None)
splice: Any = getattr(os, "splice", None)

# Offset for preadv2 that means: read at the position of the file, and move it.
HERE = -1
NOWAIT: int = getattr(os, "RWF_NOWAIT", 0)
LOWEST_OFFSET = HERE if NOWAIT else 0
# Errors without a result: no data yet, or the descriptor or kernel does not support the flag.
NO_ANSWER = frozenset({errno.EAGAIN, errno.EOPNOTSUPP, errno.ENOSYS})

# Answers of `_attempt` in place of a number of bytes.
NO_DATA, NO_FLAG = -1, -2

# The size of a file that is copied at once.
LARGEST_REST = 1 << 16

disk = Limiter("disk", 32)

supply(__name__, owner=some_library)


@compiled
def read(fd: int, length: int, /) -> bytes:
    """`os.read`. A checkpoint unless `fd` is non-blocking."""
    thread = running()
    if thread is None:
        refuse_inside_scheduler(fd, READ)
    if thread is None or (length := index(length)) <= 0 or not os.get_blocking(fd):
        return original_read(fd, length)
    thread._check()
    buffer = bytearray(length)
    return _filled(buffer, read_vector(thread, fd, [buffer]))


def readv(fd: int, buffers: Sequence[Any], /) -> int:
    """`os.readv`. A checkpoint unless `fd` is non-blocking."""
    thread = running()
    if thread is None:
        refuse_inside_scheduler(fd, READ)
    if thread is None or not os.get_blocking(fd):
        return original_readv(fd, buffers)
    thread._check()
    return read_vector(thread, fd, buffers)


def pread(fd: int, length: int, offset: int, /) -> bytes:
    """`os.pread`. A checkpoint."""
    thread = running()
    if thread is None or (length := index(length)) <= 0 or index(offset) < 0:
        return original_pread(fd, length, offset)
    thread._check()
    buffer = bytearray(length)
    return _filled(buffer, read_vector(thread, fd, [buffer], offset))


def preadv(fd: int, buffers: Sequence[Any], offset: int, flags: int = 0, /) -> int:
    """`os.preadv`. A checkpoint, unless its flags or the mode of `fd` keep it from waiting."""
    thread, flags = running(), index(flags)
    if thread is None or flags & NOWAIT or index(offset) < LOWEST_OFFSET or not os.get_blocking(fd):
        return original_preadv(fd, buffers, offset, flags)
    thread._check()
    return read_vector(thread, fd, buffers, offset, flags)


def eventfd_read(fd: int) -> int:
    """`os.eventfd_read`. A checkpoint unless `fd` is non-blocking."""
    thread = running()
    if thread is None:
        refuse_inside_scheduler(fd, READ)
    if thread is None or not os.get_blocking(fd):
        return original_eventfd_read(fd)
    # The counter is eight bytes in the byte order of the machine.
    return memoryview(read(fd, 8)).cast("Q")[0]


def _filled(buffer: bytearray, count: int) -> bytes:
    return bytes(buffer) if count == len(buffer) else bytes(memoryview(buffer)[:count])


# --- a single read, after the checkpoint


@repeated_in("_calls/files/compiled/reading.pxi")
def read_vector(thread: VirtualThread, fd: int, buffers: Sequence[Any], offset: int = HERE, flags: int = 0) -> int:
    """Read into `buffers` from `fd`, in blocking mode; park until there is data. Return the number of bytes.

    Args:
        thread: the virtual thread that runs here; it has just passed a checkpoint.
        fd, buffers, offset, flags: as for `os.preadv`; `HERE` reads at the file's position and moves it.
    """
    answer = _attempt(fd, buffers, offset, flags)
    if answer >= 0:
        return answer
    # Once for the whole call: the number means the same file as long as a thread waits for it.
    kind = kind_of(fd)
    count = _read_otherwise(fd, buffers, kind, offset, flags, answer == NO_DATA)
    while count is None:
        if kind is Kind.DISK:
            return read_at(fd, buffers, offset, flags)
        park_until_ready(thread, fd, READ, kind)
        thread._check()
        count = read_now(fd, buffers, kind, offset, flags)
    return count


def park_until_ready(thread: VirtualThread, fd: int, direction: int, kind: Kind) -> None:
    """Park until `fd`, of which only the number is known, is ready. The registration of a pipe stays for the next wait.

    A pipe of which a program has the number is used for long and closed by `os.close`. Other kinds are mostly waited
    for once.
    """
    if kind is Kind.FIFO:
        park_for_library(thread, fd, direction)
    else:
        park_for_fd(thread, fd, direction)


def read_now(
    fd: int, buffers: Sequence[Any], kind: Kind | None = None, offset: int = HERE, flags: int = 0
) -> int | None:
    """Read the available data into `buffers`; return None if there is none yet. `fd` is in blocking mode."""
    count = _attempt(fd, buffers, offset, flags)
    if count >= 0:
        return count
    return _read_otherwise(fd, buffers, kind or kind_of(fd), offset, flags, count == NO_DATA)


def _attempt(fd: int, buffers: Sequence[Any], offset: int, flags: int) -> int:
    """Read by the flag for one call; return the number of bytes, `NO_DATA`, or `NO_FLAG` if it is not supported."""
    if not NOWAIT:
        return NO_FLAG
    try:
        return original_preadv(fd, buffers, offset, flags | NOWAIT)
    except OSError as error:
        if error.errno not in NO_ANSWER:
            raise
        return NO_DATA if error.errno == errno.EAGAIN else NO_FLAG


@compiled
def rest_in_cache(fd: int) -> bytes | None:
    """Read the rest of a small file on a disk, if all of it is in the page cache; else return None and read nothing.

    The end of the file is where the file system says, so no second read has to find it.
    """
    left = fstat(fd).st_size - os.lseek(fd, 0, os.SEEK_CUR)
    if not 0 < left < LARGEST_REST:
        return None
    # One byte more: if there is one, the file system is wrong, or the file has grown.
    buffer = bytearray(left + 1)
    count = _attempt(fd, [buffer], HERE, 0)
    if count == left:
        return _filled(buffer, count)
    if count > 0:
        os.lseek(fd, -count, os.SEEK_CUR)
    return None


def _read_otherwise(fd: int, buffers: Sequence[Any], kind: Kind, offset: int, flags: int, answered: bool) -> int | None:
    """Read after `_attempt`, whose flag was `answered` or not; return None if there are no data yet."""
    if kind is Kind.DISK:
        return None
    if kind is Kind.MEMORY or not answered and wait_blocking(fd, READ, 0):
        try:
            return _read_ready(fd, kind, buffers, offset, flags)
        except BlockingIOError:
            # Another thread or process took the data between the check and the read.
            pass
    return None


def _read_ready(fd: int, kind: Kind, buffers: Sequence[Any], offset: int, flags: int) -> int:
    """Read from a descriptor that was reported as readable."""
    if kind is Kind.FIFO and splice is not None and offset == HERE:
        return _read_fifo(fd, buffers)
    return original_readv(fd, buffers) if offset == HERE else original_preadv(fd, buffers, offset, flags)


def _read_fifo(fd: int, buffers: Sequence[Any]) -> int:
    """Read a FIFO that was reported as readable, without waiting: splice its data into a new pipe, read them there."""
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
    """Read from a disk on an OS thread.

    The OS thread reads into a separate buffer, because after a cancellation it may still write when the caller has
    reused its own. For the same reason it does not move the position of the file: that is done when the data are there.
    If another thread has moved the position meanwhile, it has read the same data, so the read is repeated.
    """
    wanted = _size_of(buffers)
    while True:
        start = offset if offset != HERE else os.lseek(fd, 0, os.SEEK_CUR)
        # Page-aligned, as files opened with O_DIRECT require.
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
