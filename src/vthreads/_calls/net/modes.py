"""Blocking mode of open files: the flag O_NONBLOCK, shared by all descriptors and processes that share the open file.

A program may set the flag on the descriptor, without the socket object. Calls of the kernel then fail instead of
waiting, so the calls here fail too. The runtime itself sets the flag on listeners only, because accept(2) has no flag
for one call. It sets a mark together with it, so that another process or object that shares the listener can find
that the program still sees a blocking socket.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from typing import Any

from ..._core.engine import modes_changed
from ..._core.repeated import repeated_in

__all__ = ["changed_by_program", "ioctl", "is_kept", "keep_nonblocking", "refusal", "set_blocking"]

original_set_blocking, original_fcntl, original_ioctl = os.set_blocking, fcntl.fcntl, fcntl.ioctl

# The mark: a flag of the open file that has no effect on a socket. It is set in the same call as O_NONBLOCK, and all
# descriptors of the open file show it.
MARK = os.O_APPEND
KEPT = os.O_NONBLOCK | MARK


def is_kept(fd: int) -> bool:
    """Return whether `fd` is non-blocking because a runtime, in this or another process, made it so."""
    return original_fcntl(fd, fcntl.F_GETFL) & KEPT == KEPT


@repeated_in("_calls/net/compiled/socket.pxi")
def keep_nonblocking(fd: int) -> None:
    """Make the listener `fd` permanently non-blocking and mark it, unless it is already non-blocking."""
    flags = original_fcntl(fd, fcntl.F_GETFL)
    if not flags & os.O_NONBLOCK:
        original_fcntl(fd, fcntl.F_SETFL, flags | KEPT)


def refusal() -> BlockingIOError:
    """Return the error for a call that would have to wait on a socket that the program made non-blocking."""
    return BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def changed_by_program(fd: int) -> None:
    """Handle a change of the mode of `fd` by the program: clear the mark, and let every socket read its mode again."""
    modes_changed()
    flags = original_fcntl(fd, fcntl.F_GETFL)
    if flags & MARK and stat.S_ISSOCK(os.fstat(fd).st_mode):
        original_fcntl(fd, fcntl.F_SETFL, flags & ~MARK)


# --- replacements for the calls that change the mode


def set_blocking(fd: int, blocking: bool, /) -> None:
    """`os.set_blocking`. Not a checkpoint; thread-safe."""
    original_set_blocking(fd, blocking)
    changed_by_program(fd)


def ioctl(fd: Any, request: int, arg: Any = 0, mutate_flag: bool = True, /) -> Any:
    """`fcntl.ioctl`. Not a checkpoint; thread-safe."""
    answer = original_ioctl(fd, request, arg, mutate_flag)
    from termios import FIONBIO

    if request == FIONBIO:
        changed_by_program(fd if isinstance(fd, int) else fd.fileno())
    return answer
