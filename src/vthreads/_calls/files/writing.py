"""Replacements for `os.write` and similar calls.

Pipes, sockets and other files that may make a writer wait: each attempt does not wait, and the thread parks between
attempts until all data are written, as a blocking write would. If a cancellation or error comes after a part was
written, the call returns the size of the part, as the kernel does after a signal; the cancellation is raised at the
next checkpoint, the error by the next call. So if the call raises `Cancelled`, nothing was written. An interrupt is
raised at once, like an exception of a signal handler.

Files on a disk are written in place: the data go to the page cache in microseconds, where an OS thread would take ten
times as long. Such a write never parks, so it is not a checkpoint; `os.pwrite` and `os.pwritev` are not replaced. In
non-blocking mode, and on a plain OS thread, each call is exactly the original.
"""

from __future__ import annotations

import os
import select
from collections.abc import Sequence
from io import FileIO
from math import inf
from typing import Any

from ..._core.current import running
from ..._core.engine import WRITE, compiled
from ..._core.repeated import repeated_in
from ..._core.thread import VirtualThread
from ...errors import Cancelled
from ..net.readiness import at_once, park_for_fd, refuse_inside_scheduler, wait_blocking
from ..pauses import Pauses
from .kinds import Kind, kind_of
from .reading import HERE, NO_ANSWER, NOWAIT, park_until_ready

__all__ = ["eventfd_write", "write", "write_some", "write_whole", "writev"]

original_write, original_writev = os.write, os.writev
original_pwritev: Any = getattr(os, "pwritev", None)
original_eventfd_write: Any = getattr(os, "eventfd_write", None)

# Bytes that a descriptor accepts without waiting when it is reported as writable. A pipe has room for PIPE_BUF. Linux
# reports a tty as writable when it has room for 256 characters, and a tty may write two for one ("\r\n" for "\n").
FITS = {Kind.FIFO: select.PIPE_BUF, Kind.TTY: 128}
# The largest value of an eventfd counter. The original refuses to add more.
HIGHEST_COUNT = 2**64 - 2
LONGEST_PAUSE = 0.05


@compiled
def write(fd: int, data: Any, /) -> int:
    """`os.write`. A checkpoint unless `fd` is non-blocking or a file on a disk."""
    thread = running()
    if thread is None:
        refuse_inside_scheduler(fd, WRITE)
    if thread is None or not os.get_blocking(fd):
        return original_write(fd, data)
    with memoryview(data) as view, view.cast("B") as left:
        return write_whole(thread, fd, left)


def writev(fd: int, buffers: Sequence[Any], /) -> int:
    """`os.writev`. A checkpoint unless `fd` is non-blocking or a file on a disk."""
    thread = running()
    if thread is None:
        refuse_inside_scheduler(fd, WRITE)
    if thread is None or not os.get_blocking(fd):
        return original_writev(fd, buffers)
    # A single write may be one message or one line, so keep the buffers together.
    with memoryview(b"".join(buffers)) as left:
        return write_whole(thread, fd, left)


def eventfd_write(fd: int, value: int) -> None:
    """`os.eventfd_write`. A checkpoint unless `fd` is non-blocking."""
    thread = running()
    may_wait = isinstance(value, int) and 0 < value <= HIGHEST_COUNT
    if thread is None:
        refuse_inside_scheduler(fd, WRITE)
    if thread is None or not may_wait or not os.get_blocking(fd):
        return original_eventfd_write(fd, value)
    thread._check()
    pauses = Pauses(thread, LONGEST_PAUSE)
    while True:
        # Readiness reports room for 1 only. For more, read the counter. O_NONBLOCK is not an option: OS threads that
        # read the same eventfd meanwhile would get an error instead of waiting.
        if not wait_blocking(fd, WRITE, 0):
            park_for_fd(thread, fd, WRITE)
        elif value > 1 and value > _room_in_counter(fd):
            pauses.park()
        else:
            return original_eventfd_write(fd, value)
        thread._check()


def _room_in_counter(fd: int) -> float:
    """Return how much can be added to the eventfd `fd` now; infinity if it is not an eventfd or cannot be read."""
    try:
        with FileIO(f"/proc/self/fdinfo/{fd}") as file:
            table = file.readall()
    except OSError:
        return inf
    for line in table.splitlines():
        if line.startswith(b"eventfd-count:"):
            return HIGHEST_COUNT - int(line.split()[1], 16)
    return inf


# --- a write in blocking mode


def write_whole(thread: VirtualThread, fd: int, left: memoryview) -> int:
    """Write `left` to `fd` and park as needed. Return the bytes written: all, unless it ended early after a part."""
    _checkpoint(thread, fd)
    written = 0
    while True:
        try:
            count = write_some(fd, left[written:])
            if count is None:
                park_until_ready(thread, fd, WRITE, kind_of(fd))
                thread._check()
                continue
            written += count
        except (Cancelled, OSError):
            if not written:
                raise
            return written
        if written >= len(left):
            return written


def _checkpoint(thread: VirtualThread, fd: int) -> None:
    """Call `thread._check()`, unless `fd` never parks. Finding that out costs a call, so do it only if one is due."""
    scheduler = thread._scheduler
    due = thread._pending or scheduler.clock.now() >= scheduler.slice_end
    if due and kind_of(fd) not in (Kind.DISK, Kind.MEMORY):
        thread._check()


@repeated_in("_calls/files/compiled/writing.pxi")
def write_some(fd: int, data: memoryview, kind: Kind | None = None) -> int | None:
    """Write as much of `data` to `fd` as is possible without waiting; return None if that is nothing.

    Args:
        fd: must be in blocking mode, else this raises `BlockingIOError`.
        data: the bytes to write.
        kind: the kind of `fd`, if the caller has it.
    """
    if kind not in (Kind.DISK, Kind.MEMORY, Kind.TTY):
        try:
            if NOWAIT:
                return original_pwritev(fd, [data], HERE, NOWAIT)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno not in NO_ANSWER:
                raise
    kind = kind or kind_of(fd)
    if kind is Kind.DISK or kind is Kind.MEMORY:
        return original_write(fd, data)
    if not wait_blocking(fd, WRITE, 0):
        return None
    if kind is Kind.SOCKET:
        # The kernel lacks the flag. Use O_NONBLOCK for this call, as the socket calls do.
        try:
            with at_once(fd, WRITE):
                return original_write(fd, data)
        except BlockingIOError:
            return None
    return original_write(fd, data[: FITS.get(kind, len(data))])
