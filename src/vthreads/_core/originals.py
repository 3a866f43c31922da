"""The blocking calls as they were before anything was patched, for the runtime's own use.

Imported with the package, so before `patch()` can run. Nothing here is ever replaced.
"""

from __future__ import annotations

import os
import select as _select
import socket as _socket
import time
from _thread import LockType, RLock, allocate_lock, get_ident, interrupt_main
from typing import Any

__all__ = [
    "LockType",
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

read_fd, write_fd, close_fd = os.read, os.write, os.close
sleep = time.sleep
getaddrinfo = _socket.getaddrinfo
select = _select.select
# Not every platform has each of these.
poll: Any = getattr(_select, "poll", None)
epoll: Any = getattr(_select, "epoll", None)
kqueue: Any = getattr(_select, "kqueue", None)
