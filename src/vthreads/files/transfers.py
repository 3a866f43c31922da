"""What `os.splice` and `os.copy_file_range` become: data that go from one descriptor to another inside the kernel."""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack
from typing import Any

from .._core.current import running
from .._core.engine import READ, WRITE
from ..net.readiness import nonblocking, park_for_fd, wait_blocking
from ..offload import offload

__all__ = ["copy_file_range", "splice"]

original_splice: Any = getattr(os, "splice", None)
original_copy_file_range: Any = getattr(os, "copy_file_range", None)

# Bytes that are copied at once. The kernel may copy fewer than asked for, so callers expect it; and a cancelled copy is
# waited for, since what it has copied cannot be told otherwise.
COPIED_AT_ONCE = 8 << 20


def splice(
    src: int, dst: int, count: int, offset_src: int | None = None, offset_dst: int | None = None, flags: int = 0
) -> int:
    """`os.splice`. A checkpoint, unless its flags or both descriptors say that it does not wait."""
    thread = running()
    arguments = (src, dst, count, offset_src, offset_dst)
    if thread is None or flags & os.SPLICE_F_NONBLOCK or not (os.get_blocking(src) or os.get_blocking(dst)):
        return original_splice(*arguments, flags)
    thread.check()
    sockets = [fd for fd in (src, dst) if stat.S_ISSOCK(os.fstat(fd).st_mode)]
    while True:
        waits_for = next((pair for pair in ((src, READ), (dst, WRITE)) if not wait_blocking(*pair, 0)), None)
        if waits_for is not None:
            park_for_fd(thread, *waits_for)
            thread.check()
            continue
        try:
            # The flag covers the pipe among the two, but no socket.
            with ExitStack() as modes:
                for fd in sockets:
                    modes.enter_context(nonblocking(fd))
                return original_splice(*arguments, flags | os.SPLICE_F_NONBLOCK)
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
