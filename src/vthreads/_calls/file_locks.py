"""Replacements for `fcntl.flock`, `fcntl.lockf`, `fcntl.fcntl` with F_SETLKW, and `os.lockf`.

They try to lock without waiting, and retry after growing pauses. No descriptor reports that a file lock is free, and a
blocking call on an OS thread could not be abandoned: a lock of `flock` belongs to the open file and one of `lockf` to
the process. So a lock that an abandoned call obtains later is the same lock that the program may hold by then, and
releasing it would release both.

Compared with the blocking call, two things are lost: the fair queue of the kernel, and its deadlock detection.
"""

from __future__ import annotations

import fcntl as _fcntl
import os
from collections.abc import Callable
from operator import index
from typing import Any

from .._core.current import running
from .inside_scheduler import wait_outside_scheduler
from .net.modes import changed_by_program
from .pauses import Pauses

__all__ = ["fcntl", "flock", "lockf", "lockf_from_position"]

original_flock, original_lockf, original_fcntl = _fcntl.flock, _fcntl.lockf, _fcntl.fcntl
original_lockf_from_position = os.lockf

# Seconds, at most, between the release of a lock and the next attempt.
LONGEST_PAUSE = 0.05

DO_NOT_WAIT = _fcntl.LOCK_NB | _fcntl.LOCK_UN

# The result of an attempt that finds the lock held.
BUSY = object()

# Commands that wait, with the command that does not. Not every platform has locks of the open file (OFD).
TRYING = {_fcntl.F_SETLKW: _fcntl.F_SETLK}
if hasattr(_fcntl, "F_OFD_SETLKW"):
    TRYING[_fcntl.F_OFD_SETLKW] = _fcntl.F_OFD_SETLK


def flock(fd: Any, operation: int, /) -> None:
    """`fcntl.flock`. A checkpoint unless `operation` has LOCK_NB or LOCK_UN; thread-safe."""
    operation = index(operation)
    if operation & DO_NOT_WAIT:
        original_flock(fd, operation)
        return
    _until_free(lambda: original_flock(fd, operation), lambda: original_flock(fd, operation | _fcntl.LOCK_NB))


def lockf(fd: Any, cmd: int, len: int = 0, start: int = 0, whence: int = 0, /) -> None:
    """`fcntl.lockf`. A checkpoint unless `cmd` has LOCK_NB or LOCK_UN; thread-safe."""
    cmd = index(cmd)
    if cmd & DO_NOT_WAIT:
        original_lockf(fd, cmd, len, start, whence)
        return
    _until_free(
        lambda: original_lockf(fd, cmd, len, start, whence),
        lambda: original_lockf(fd, cmd | _fcntl.LOCK_NB, len, start, whence),
    )


def lockf_from_position(fd: Any, command: int, length: int, /) -> None:
    """`os.lockf`. A checkpoint if `command` is F_LOCK; thread-safe."""
    if command != os.F_LOCK:
        original_lockf_from_position(fd, command, length)
        return
    _until_free(
        lambda: original_lockf_from_position(fd, os.F_LOCK, length),
        lambda: original_lockf_from_position(fd, os.F_TLOCK, length),
    )


def fcntl(fd: Any, cmd: int, arg: Any = 0, /) -> Any:
    """`fcntl.fcntl`. A checkpoint if `cmd` is F_SETLKW or F_OFD_SETLKW; thread-safe."""
    if cmd == _fcntl.F_SETFL:
        answer = original_fcntl(fd, cmd, arg)
        changed_by_program(fd if isinstance(fd, int) else fd.fileno())
        return answer
    if cmd not in TRYING:
        return original_fcntl(fd, cmd, arg)
    return _until_free(lambda: original_fcntl(fd, cmd, arg), lambda: original_fcntl(fd, TRYING[cmd], arg))


def _until_free(wait: Callable[[], Any], attempt: Callable[[], Any]) -> Any:
    """Return the result of `wait()`, the original call, on a plain OS thread; elsewhere call `attempt()` instead."""
    thread = running()
    if thread is None:
        return wait_outside_scheduler(wait, lambda: _try(attempt), lambda result: result is not BUSY)
    thread._check()
    pauses = Pauses(thread, LONGEST_PAUSE)
    while (result := _try(attempt)) is BUSY:
        pauses.park()
    return result


def _try(attempt: Callable[[], Any]) -> Any:
    try:
        return attempt()
    except (BlockingIOError, PermissionError):
        # Another process or open file holds the lock: EAGAIN, or EACCES on some systems.
        return BUSY
