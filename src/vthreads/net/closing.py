"""Closing a descriptor by its number: whoever waits for it is told first, and its number may mean another file next."""

from __future__ import annotations

import os
import socket
from typing import Any

from .readiness import forget_fd

__all__ = ["close", "close_socket", "closerange", "dup2"]

original_close, original_closerange, original_dup2 = os.close, os.closerange, os.dup2
original_close_socket = socket.close


def close(fd: int) -> None:
    """`os.close`. Not a checkpoint."""
    _forget(fd)
    original_close(fd)


def close_socket(fd: Any, /) -> None:
    """`socket.close`. Not a checkpoint."""
    _forget(fd)
    original_close_socket(fd)


def closerange(fd_low: int, fd_high: int, /) -> None:
    """`os.closerange`. Not a checkpoint."""
    # The range may be the whole table of the process; only open ones can be waited for.
    for fd in range(fd_low, min(fd_high, fd_low + 65_536)):
        _forget(fd)
    original_closerange(fd_low, fd_high)


def dup2(fd: int, fd2: int, inheritable: bool = True) -> int:
    """`os.dup2`, which closes `fd2` first. Not a checkpoint."""
    if fd != fd2:
        _forget(fd2)
    return original_dup2(fd, fd2, inheritable)


def _forget(fd: Any) -> None:
    if isinstance(fd, int) and fd >= 0:
        forget_fd(fd)
