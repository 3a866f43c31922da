"""The blocking calls as they were before anything was patched, for the runtime's own use.

Imported with the package, so before `patch()` can run. Nothing here is ever replaced.
"""

from __future__ import annotations

import os
import select as _select
import socket as _socket
import time
from _thread import LockType, allocate_lock, get_ident, interrupt_main
from _thread import RLock as PlainRLock
from typing import Any

__all__ = [
    "LockType",
    "PlainRLock",
    "RLock",
    "allocate_lock",
    "close_fd",
    "epoll",
    "get_ident",
    "getaddrinfo",
    "interrupt_main",
    "kqueue",
    "poll",
    "read_fd",
    "select",
    "sleep",
    "write_fd",
]


class RLock(PlainRLock):  # type: ignore[misc]  # final in the type stubs only
    """The runtime's own reentrant lock: told apart from those of others, which patching exchanges."""

    __slots__ = ()


read_fd, write_fd, close_fd = os.read, os.write, os.close
sleep = time.sleep
getaddrinfo = _socket.getaddrinfo
select = _select.select
# Not every platform has each of these.
poll: Any = getattr(_select, "poll", None)
epoll: Any = getattr(_select, "epoll", None)
kqueue: Any = getattr(_select, "kqueue", None)
