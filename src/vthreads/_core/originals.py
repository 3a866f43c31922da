"""The original blocking calls, saved before patching, for the runtime itself.

Imported with the package, so before `patch()` can run. Nothing here is ever replaced.
"""

from __future__ import annotations

import _thread
import os
import select as _select
import time
from _thread import LockType, allocate_lock, get_ident, interrupt_main
from _thread import RLock as PlainRLock
from typing import Any

__all__ = [
    "LockType",
    "OSThreadLocal",
    "PlainRLock",
    "Section",
    "allocate_lock",
    "close_fd",
    "epoll",
    "get_ident",
    "interrupt_main",
    "kqueue",
    "poll",
    "read_fd",
    "select",
    "sleep",
    "write_fd",
]


class Section(PlainRLock):  # type: ignore[misc]  # final in the type stubs only
    """A reentrant lock for a few instructions; a finalizer may run while it is held.

    A separate class, because patching replaces all plain `RLock`s. A compiled engine has another `Section`; modules
    above the engine import that name from the engine.
    """

    __slots__ = ()


# The original of `threading.local`.
OSThreadLocal = _thread._local
read_fd, write_fd, close_fd = os.read, os.write, os.close
sleep = time.sleep
select = _select.select
# Not every platform has each of these.
poll: Any = getattr(_select, "poll", None)
epoll: Any = getattr(_select, "epoll", None)
kqueue: Any = getattr(_select, "kqueue", None)
