"""What `os.sendfile`, `os.splice` and `os.copy_file_range` become: data that pass inside the kernel."""

from __future__ import annotations

import os
import select
import stat
from contextlib import ExitStack
from typing import Any

from .._core.current import running
from .._core.engine import READ, WRITE
from ..net.readiness import at_once, park_for_fd, wait_blocking
from ..offload import offload

__all__ = ["copy_file_range", "sendfile", "splice"]

original_sendfile: Any = getattr(os, "sendfile", None)
original_splice: Any = getattr(os, "splice", None)
original_copy_file_range: Any = getattr(os, "copy_file_range", None)

# Bytes that are copied at once. The kernel may copy fewer than asked for, so callers expect it; and a cancelled copy is
# waited for, since what it has copied cannot be told otherwise.
COPIED_AT_ONCE = 8 << 20
# Bytes for which there is room in a pipe or stream socket that says "ready".
FITS = select.PIPE_BUF


def sendfile(out_fd: int, in_fd: int, offset: int | None, count: int, *args: Any, **kwargs: Any) -> int:
    """`os.sendfile`, under `socket.sendfile`. A checkpoint, unless `out_fd` is non-blocking."""
    thread = running()
    if thread is None or not os.get_blocking(out_fd):
        return original_sendfile(out_fd, in_fd, offset, count, *args, **kwargs)
    while True:
        thread.check()
        try:
            with at_once(out_fd, WRITE) as for_all:
                return original_sendfile(out_fd, in_fd, offset, count if for_all else min(count, FITS), *args, **kwargs)
        except BlockingIOError:
            pass
        park_for_fd(thread, out_fd, WRITE)


def splice(
    src: int, dst: int, count: int, offset_src: int | None = None, offset_dst: int | None = None, flags: int = 0
) -> int:
    """`os.splice`. A checkpoint, unless its flags or both descriptors say that it does not wait."""
    thread = running()
    if thread is None or flags & os.SPLICE_F_NONBLOCK or not (os.get_blocking(src) or os.get_blocking(dst)):
        return original_splice(src, dst, count, offset_src, offset_dst, flags)
    thread.check()
    sockets = [pair for pair in ((src, READ), (dst, WRITE)) if stat.S_ISSOCK(os.fstat(pair[0]).st_mode)]
    while True:
        waits_for = next((pair for pair in ((src, READ), (dst, WRITE)) if not wait_blocking(*pair, 0)), None)
        if waits_for is not None:
            park_for_fd(thread, *waits_for)
            thread.check()
            continue
        try:
            # The flag covers the pipe among the two, but no socket.
            with ExitStack() as modes:
                room = [count if modes.enter_context(at_once(*pair)) else FITS for pair in sockets]
                wanted = min([count, *room])
                return original_splice(src, dst, wanted, offset_src, offset_dst, flags | os.SPLICE_F_NONBLOCK)
        except BlockingIOError:
            # Somebody else was quicker, which the next look will tell.
            thread.yield_now()


def copy_file_range(
    src: int, dst: int, count: int, offset_src: int | None = None, offset_dst: int | None = None
) -> int:
    """`os.copy_file_range`, at most 8 MiB at once, on an OS thread. A checkpoint; once begun, it is waited for."""
    if running() is None:
        return original_copy_file_range(src, dst, count, offset_src, offset_dst)
    return offload(original_copy_file_range, src, dst, min(count, COPIED_AT_ONCE), offset_src, offset_dst)
