"""Close a descriptor by its number: first unpark the threads that wait for it, since the number may be reused at once.

The descriptors of the runtime's own pollers look closed to the program. Otherwise a daemon that closes all descriptors
of its process would also close the poller, and no virtual thread could wait any more.
"""

from __future__ import annotations

import errno
import os
from typing import Any

from ..._core.engine.pollers.wakeup import own_fds
from .readiness import forget_fd

__all__ = ["close", "closerange", "dup2", "forget", "refuse_own"]

original_close, original_closerange, original_dup2 = os.close, os.closerange, os.dup2


def close(fd: int) -> None:
    """`os.close`. Not a checkpoint."""
    refuse_own(fd)
    forget(fd)
    original_close(fd)


def closerange(fd_low: int, fd_high: int, /) -> None:
    """`os.closerange`. Not a checkpoint."""
    # The range may cover the whole descriptor table of the process. Numbers beyond 65,536 are not searched: only
    # open descriptors have waiters, and few processes have more.
    for fd in range(fd_low, min(fd_high, fd_low + 65_536)):
        forget(fd)
    for own in sorted(fd for fd in own_fds if fd_low <= fd < fd_high):
        original_closerange(fd_low, own)
        fd_low = own + 1
    original_closerange(fd_low, fd_high)


def dup2(fd: int, fd2: int, inheritable: bool = True) -> int:
    """`os.dup2`, which closes `fd2` first. Not a checkpoint."""
    if fd != fd2:
        forget(fd2)
    return original_dup2(fd, fd2, inheritable)


def refuse_own(fd: Any) -> None:
    """Raise the error of a closed descriptor if `fd` belongs to the runtime."""
    if isinstance(fd, int) and fd in own_fds:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))


def forget(fd: Any) -> None:
    """Unpark the threads that wait for `fd`."""
    if isinstance(fd, int) and fd >= 0:
        forget_fd(fd)
