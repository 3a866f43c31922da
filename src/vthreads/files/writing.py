"""What `os.write` and its like become.

Pipes, sockets and what else may make a writer wait: tried in a way that does not wait, and parked in between, until
all is written, as a blocking write would. If that ends early after a part, by a cancellation or an error, the answer is
that part, as it is when a signal interrupts a write; the reason comes at the next checkpoint or call. So if `Cancelled`
came out, nothing was written. An interrupt is raised at once, as what a signal handler raises is.

Files on a disk are written in place: into the page cache, which takes microseconds where an OS thread would take ten
times as many. It never parks, so it is no checkpoint, and neither are `os.pwrite` and `os.pwritev`, which stay as they
are. In non-blocking mode, and on a plain OS thread, each is exactly the original.
"""

from __future__ import annotations

import io
import os
import select
from collections.abc import Sequence
from math import inf
from typing import Any

from .._core.current import running
from .._core.engine import WRITE
from .._core.thread import VirtualThread
from ..errors import Cancelled
from ..net.readiness import at_once, park_for_fd, wait_blocking
from ..pauses import Pauses
from .kinds import Kind, kind_of
from .reading import HERE, NO_ANSWER, NOWAIT

__all__ = ["eventfd_write", "write", "write_some", "write_whole", "writev"]

original_write, original_writev = os.write, os.writev
original_pwritev: Any = getattr(os, "pwritev", None)
original_eventfd_write: Any = getattr(os, "eventfd_write", None)

# How much a descriptor that says "ready" takes for certain without waiting. A pipe has room for that much; of a tty,
# Linux says so as soon as there is room for 256 characters, and it may make two of one ("\r\n" of "\n").
FITS = {Kind.FIFO: select.PIPE_BUF, Kind.TTY: 128}
# The counter of an eventfd at its highest; the original refuses to add more than that.
HIGHEST_COUNT = 2**64 - 2
LONGEST_PAUSE = 0.05


def write(fd: int, data: Any, /) -> int:
    """`os.write`. A checkpoint unless `fd` is non-blocking or a file on a disk."""
    thread = running()
    if thread is None or not os.get_blocking(fd):
        return original_write(fd, data)
    with memoryview(data) as view, view.cast("B") as left:
        return write_whole(thread, fd, left)


def writev(fd: int, buffers: Sequence[Any], /) -> int:
    """`os.writev`. A checkpoint unless `fd` is non-blocking or a file on a disk."""
    thread = running()
    if thread is None or not os.get_blocking(fd):
        return original_writev(fd, buffers)
    # One write may be one message or one line, so they stay together.
    with memoryview(b"".join(buffers)) as left:
        return write_whole(thread, fd, left)


def eventfd_write(fd: int, value: int) -> None:
    """`os.eventfd_write`. A checkpoint unless `fd` is non-blocking."""
    thread = running()
    may_wait = isinstance(value, int) and 0 < value <= HIGHEST_COUNT
    if thread is None or not may_wait or not os.get_blocking(fd):
        return original_eventfd_write(fd, value)
    thread.check()
    pauses = Pauses(thread, LONGEST_PAUSE)
    while True:
        # Readiness tells of room for 1. For more the counter is looked at, and O_NONBLOCK is no way to try: OS threads
        # that read the same eventfd meanwhile would be told that there is nothing, instead of waiting.
        if not wait_blocking(fd, WRITE, 0):
            park_for_fd(thread, fd, WRITE)
        elif value > 1 and value > _room_in_counter(fd):
            pauses.park()
        else:
            return original_eventfd_write(fd, value)
        thread.check()


def _room_in_counter(fd: int) -> float:
    """How much can be added to the eventfd `fd` now; no limit, if it is none or nothing tells."""
    try:
        with io.FileIO(f"/proc/self/fdinfo/{fd}") as file:
            table = file.readall()
    except OSError:
        return inf
    for line in table.splitlines():
        if line.startswith(b"eventfd-count:"):
            return HIGHEST_COUNT - int(line.split()[1], 16)
    return inf


# --- one write in blocking mode


def write_whole(thread: VirtualThread, fd: int, left: memoryview) -> int:
    """Write `left` to `fd`, parking in between. How much was written: all, unless it ended early after a part."""
    _checkpoint(thread, fd)
    written = 0
    while True:
        try:
            count = write_some(fd, left[written:])
            if count is None:
                park_for_fd(thread, fd, WRITE)
                thread.check()
                continue
            written += count
        except (Cancelled, OSError):
            if not written:
                raise
            return written
        if written >= len(left):
            return written


def _checkpoint(thread: VirtualThread, fd: int) -> None:
    """`thread.check()`, unless `fd` never parks, which is only found out when something is due: it costs a call."""
    scheduler = thread.scheduler
    due = thread.pending or scheduler.clock.now() >= scheduler.slice_end
    if due and kind_of(fd) not in (Kind.DISK, Kind.MEMORY):
        thread.check()


def write_some(fd: int, data: memoryview, kind: Kind | None = None) -> int | None:
    """Write as much of `data` to `fd` as can be written without waiting; None if that is nothing.

    Args:
        fd: in blocking mode, or else this raises `BlockingIOError`.
        data: what to write.
        kind: what `fd` is, if the caller knows.
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
        # A kernel without the flag. For sockets this is what the others of their calls do as well.
        try:
            with at_once(fd, WRITE):
                return original_write(fd, data)
        except BlockingIOError:
            return None
    return original_write(fd, data[: FITS.get(kind, len(data))])
