"""What `os.wait` and its like become on a virtual thread.

The original is asked with WNOHANG; if no child has anything to tell, the virtual thread parks until one may have, and
asks again. So a child is reaped by whoever returns it, and `Cancelled` leaves it to be waited for. Two that wait for
one child are as two OS threads: one gets it, the other `ChildProcessError`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

from .._core.current import running
from .._core.thread import VirtualThread
from .children import Changes, ChildWait

__all__ = ["wait", "wait3", "wait4", "waitid", "waitpid"]

T = TypeVar("T")

original_wait, original_waitpid = os.wait, os.waitpid
original_wait3, original_wait4 = os.wait3, os.wait4
original_waitid: Any = getattr(os, "waitid", None)


def wait() -> tuple[int, int]:
    """`os.wait`. A checkpoint; thread-safe."""
    thread = running()
    if thread is None:
        return original_wait()
    return _until_one(thread, _changes(-1, 0), lambda: original_waitpid(-1, os.WNOHANG))


def waitpid(pid: int, options: int, /) -> tuple[int, int]:
    """`os.waitpid`. A checkpoint unless `options` has WNOHANG; thread-safe."""
    thread = running()
    if thread is None or options & os.WNOHANG:
        return original_waitpid(pid, options)
    return _until_one(thread, _changes(pid, options), lambda: original_waitpid(pid, options | os.WNOHANG))


def wait3(options: int) -> tuple[int, int, Any]:
    """`os.wait3`. A checkpoint unless `options` has WNOHANG; thread-safe."""
    thread = running()
    if thread is None or options & os.WNOHANG:
        return original_wait3(options)
    return _until_one(thread, _changes(-1, options), lambda: original_wait3(options | os.WNOHANG))


def wait4(pid: int, options: int) -> tuple[int, int, Any]:
    """`os.wait4`. A checkpoint unless `options` has WNOHANG; thread-safe."""
    thread = running()
    if thread is None or options & os.WNOHANG:
        return original_wait4(pid, options)
    return _until_one(thread, _changes(pid, options), lambda: original_wait4(pid, options | os.WNOHANG))


def waitid(idtype: int, id: int, options: int, /) -> Any:
    """`os.waitid`. A checkpoint unless `options` has WNOHANG; thread-safe."""
    thread = running()
    if thread is None or options & os.WNOHANG:
        return original_waitid(idtype, id, options)
    changes = Changes(idtype, id, options & ~os.WNOWAIT)
    return _until(thread, changes, lambda: original_waitid(idtype, id, options | os.WNOHANG))


def _changes(pid: int, options: int) -> Changes:
    """What `waitpid(pid, options)` waits for, as `waitid` says it."""
    if original_waitid is None:
        # It will not be asked.
        return Changes(0, pid, options)
    # Of the same number on Linux, but a bit of its own elsewhere.
    wanted = options & ~os.WUNTRACED | os.WEXITED | (os.WSTOPPED if options & os.WUNTRACED else 0)
    if pid > 0:
        return Changes(os.P_PID, pid, wanted)
    if pid == -1:
        return Changes(os.P_ALL, 0, wanted)
    return Changes(os.P_PGID, -pid or os.getpgrp(), wanted)


def _until_one(thread: VirtualThread, changes: Changes, attempt: Callable[[], T]) -> T:
    """`_until`, for the calls that tell by pid 0 that there is nothing."""
    return _until(thread, changes, lambda: result if (result := attempt())[0] else None)  # type: ignore[index]  # a tuple


def _until(thread: VirtualThread, changes: Changes, attempt: Callable[[], T | None]) -> T:
    thread.check()
    change = ChildWait(thread, changes)
    while True:
        result = attempt()
        if result is not None:
            return result
        change.park()
