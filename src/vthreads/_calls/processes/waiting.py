"""Replacements for `os.wait`, `os.waitpid` and similar calls.

Each calls the original with WNOHANG. If no child has changed, the virtual thread parks until one may have, and calls
again. So only the call that returns a child reaps it, and a cancelled call leaves it to others. Two threads that wait
for the same child behave like two OS threads: one gets the status, the other `ChildProcessError`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from operator import index
from typing import Any, TypeVar

from ..._core.current import running
from ..inside_scheduler import wait_outside_scheduler
from .children import Changes, ChildWait

__all__ = ["wait", "wait3", "wait4", "waitid", "waitpid"]

T = TypeVar("T")

original_waitpid, original_wait3, original_wait4 = os.waitpid, os.wait3, os.wait4
original_waitid: Any = getattr(os, "waitid", None)


def wait() -> tuple[int, int]:
    """`os.wait`. A checkpoint; thread-safe."""
    return waitpid(-1, 0)


def waitpid(pid: int, options: int, /) -> tuple[int, int]:
    """`os.waitpid`. A checkpoint unless `options` has WNOHANG; thread-safe."""
    # `index` refuses a value that is not an int, with the same message as the original.
    pid, options = index(pid), index(options)
    if options & os.WNOHANG:
        return original_waitpid(pid, options)
    return _wait(options, lambda options: original_waitpid(pid, options), lambda: _changes(pid, options))


def wait3(options: int) -> tuple[int, int, Any]:
    """`os.wait3`. A checkpoint unless `options` has WNOHANG; thread-safe."""
    options = index(options)
    return _wait(options, original_wait3, lambda: _changes(-1, options))


def wait4(pid: int, options: int) -> tuple[int, int, Any]:
    """`os.wait4`. A checkpoint unless `options` has WNOHANG; thread-safe."""
    pid, options = index(pid), index(options)
    return _wait(options, lambda options: original_wait4(pid, options), lambda: _changes(pid, options))


def waitid(idtype: int, id: int, options: int, /) -> Any:
    """`os.waitid`. A checkpoint unless `options` has WNOHANG; thread-safe."""
    idtype, id, options = index(idtype), index(id), index(options)
    return _wait(
        options,
        lambda options: original_waitid(idtype, id, options),
        lambda: Changes(idtype, id, options & ~os.WNOWAIT),
    )


def _changes(pid: int, options: int) -> Changes:
    """Return the arguments of `waitid` that mean the same as `waitpid(pid, options)`."""
    if original_waitid is None:
        # Without `waitid` the result is not used.
        return Changes(0, pid, options)
    # WUNTRACED and WSTOPPED are the same number on Linux, but different ones elsewhere.
    wanted = options & ~os.WUNTRACED | os.WEXITED | (os.WSTOPPED if options & os.WUNTRACED else 0)
    if pid > 0:
        return Changes(os.P_PID, pid, wanted)
    if pid == -1:
        return Changes(os.P_ALL, 0, wanted)
    return Changes(os.P_PGID, -pid or os.getpgrp(), wanted)


def _has_changed(result: object) -> bool:
    """Whether a call with WNOHANG has found a child: `waitid` returns None otherwise, the others pid 0."""
    return result is not None and (type(result) is not tuple or result[0] != 0)


def _wait(options: int, call: Callable[[int], T], changes: Callable[[], Changes]) -> T:
    """Return the result of `call(options)`; park instead of blocking.

    Args:
        options: the options of the program.
        call: the original with all arguments except the options.
        changes: returns the arguments of `waitid` that wait for the same changes.
    """
    if options & os.WNOHANG:
        return call(options)
    attempt = partial(call, options | os.WNOHANG)
    thread = running()
    if thread is None:
        return wait_outside_scheduler(partial(call, options), attempt, _has_changed)
    thread._check()
    change = ChildWait(thread, changes())
    while not _has_changed(result := attempt()):
        change.park()
    return result
