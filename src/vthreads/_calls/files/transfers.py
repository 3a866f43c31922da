"""Replacements for `os.sendfile`, `os.splice` and `os.copy_file_range`, which transfer data inside the kernel.

`sendfile` and `splice` have no flag that keeps them from waiting for a socket. Setting O_NONBLOCK for one call is no
alternative: it belongs to the open file, so calls of other OS threads and processes that share the socket would fail.
So `sendfile` becomes a read and a write, which have such flags, at about the speed of the original. Where these cannot
replace it, readiness is checked first, and only as much is moved as certainly fits.
"""

from __future__ import annotations

import os
import select
import stat
import sys
from operator import index
from typing import Any

from ..._core.current import running
from ..._core.engine import READ, WRITE
from ..._core.thread import VirtualThread
from ..._os_threads.offload import offload
from ..net.readiness import park_for_fd, refuse_inside_scheduler, wait_blocking
from .kinds import Kind, fstat, kind_of
from .reading import NOWAIT, read_vector
from .writing import write_some

__all__ = ["copy_file_range", "sendfile", "splice"]

original_sendfile: Any = getattr(os, "sendfile", None)
original_splice: Any = getattr(os, "splice", None)
original_copy_file_range: Any = getattr(os, "copy_file_range", None)

# Most bytes per call. The kernel may copy fewer than requested, so callers expect that. A cancelled copy cannot be
# abandoned, because the number of copied bytes would be lost; so the limit also limits the delay of a cancellation.
COPIED_AT_ONCE = 8 << 20
# Most bytes to read and send per call. With this many the loopback device reaches its full speed.
SENT_AT_ONCE = 1 << 18
# Bytes that a pipe or stream socket accepts without waiting when it is reported as writable.
FITS = select.PIPE_BUF


def sendfile(out_fd: int, in_fd: int, offset: int | None, count: int, *args: Any, **kwargs: Any) -> int:
    """`os.sendfile`, used by `socket.sendfile`; at most 256 KiB per call. A checkpoint if `out_fd` is blocking."""
    thread = running()
    count = index(count)
    # Linux has no headers for this call, so the original refuses more arguments there.
    is_odd = count > sys.maxsize or bool(NOWAIT and (args or kwargs))
    if thread is None:
        refuse_inside_scheduler(out_fd, WRITE)
    if thread is None or is_odd or not os.get_blocking(out_fd):
        return original_sendfile(out_fd, in_fd, offset, count, *args, **kwargs)
    thread._check()
    if not _can_be_read_and_written(in_fd, offset, count):
        # Among other files that can be sent, only a FIFO makes the call wait; the original refuses the rest.
        pipes = [(in_fd, READ)] if kind_of(in_fd) is Kind.FIFO else []
        _park_until_ready(thread, *pipes, (out_fd, WRITE))
        return original_sendfile(out_fd, in_fd, offset, min(count, FITS), *args, **kwargs)
    while True:
        # Wait before allocating the buffer: the wait may be long, and thousands of threads may wait.
        _park_until_ready(thread, (out_fd, WRITE))
        sent = _read_and_write(thread, out_fd, in_fd, offset, count)
        if sent is not None:
            return sent


def _can_be_read_and_written(in_fd: int, offset: int | None, count: int) -> bool:
    """Return whether a read and a write do the same as sendfile(2). The original refuses wrong arguments itself."""
    # NOWAIT means preadv2, so Linux. Elsewhere sendfile may have headers, and a count of 0 means "all".
    return bool(NOWAIT) and count > 0 and (offset is None or index(offset) >= 0) and stat.S_ISREG(fstat(in_fd).st_mode)


def _read_and_write(thread: VirtualThread, out_fd: int, in_fd: int, offset: int | None, count: int) -> int | None:
    """Send a piece of the file; return None if there was no room. Moves the file position only by what was sent."""
    start = os.lseek(in_fd, 0, os.SEEK_CUR) if offset is None else offset
    piece = memoryview(bytearray(min(count, SENT_AT_ONCE)))
    size = read_vector(thread, in_fd, [piece], start)
    sent = write_some(out_fd, piece[:size]) if size else 0
    if sent and offset is None:
        os.lseek(in_fd, start + sent, os.SEEK_SET)
    return sent


def splice(
    src: int, dst: int, count: int, offset_src: int | None = None, offset_dst: int | None = None, flags: int = 0
) -> int:
    """`os.splice`. A checkpoint, unless its flags or the mode of both descriptors keep it from waiting."""
    thread = running()
    if thread is None and not flags & os.SPLICE_F_NONBLOCK:
        refuse_inside_scheduler(src, READ)
        refuse_inside_scheduler(dst, WRITE)
    if (
        thread is None
        or count > sys.maxsize
        or flags & os.SPLICE_F_NONBLOCK
        or not (os.get_blocking(src) or os.get_blocking(dst))
    ):
        return original_splice(src, dst, count, offset_src, offset_dst, flags)
    thread._check()
    # SPLICE_F_NONBLOCK applies to the pipe, but not to a socket. A readable socket moves what it has, without waiting;
    # a writable one waits for room if more is moved than fits, so limit that.
    wanted = min(count, FITS) if kind_of(dst) is Kind.SOCKET else count
    while True:
        _park_until_ready(thread, (src, READ), (dst, WRITE))
        try:
            return original_splice(src, dst, wanted, offset_src, offset_dst, flags | os.SPLICE_F_NONBLOCK)
        except BlockingIOError:
            # Another thread or process was faster; the next readiness check will show it.
            thread._yield_now()


def _park_until_ready(thread: VirtualThread, *wanted: tuple[int, int]) -> None:
    """Park until each of `wanted`, pairs of descriptor and direction, is ready. A checkpoint, if it parks."""
    while (waits_for := next((pair for pair in wanted if not wait_blocking(*pair, 0)), None)) is not None:
        park_for_fd(thread, *waits_for)
        thread._check()


def copy_file_range(
    src: int, dst: int, count: int, offset_src: int | None = None, offset_dst: int | None = None
) -> int:
    """`os.copy_file_range`, at most 8 MiB per call, on an OS thread. A checkpoint; cannot be cancelled once begun."""
    if running() is None:
        return original_copy_file_range(src, dst, count, offset_src, offset_dst)
    count = index(count)
    if count > COPIED_AT_ONCE and count <= sys.maxsize:
        count = COPIED_AT_ONCE
    return offload(original_copy_file_range, src, dst, count, offset_src, offset_dst)
