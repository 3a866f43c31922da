"""Every exception a user may catch.

`Cancelled` is a `BaseException`, so that `except Exception` does not swallow a cancellation; everything else is an
ordinary exception. `Empty` and `Full` are the `queue` module's own.
"""

from __future__ import annotations

import sys
from queue import Empty, Full
from typing import Any

__all__ = [
    "Cancelled",
    "ChannelClosed",
    "DeadlockError",
    "Empty",
    "Full",
    "GroupClosed",
    "GroupFull",
    "Interrupted",
    "ScopeMisuse",
    "ShutDown",
]


class Cancelled(BaseException):
    """Raised at every checkpoint inside a cancelled scope.

    Let it pass: the scope that was cancelled absorbs it. If it came out of a call, that call did nothing.

    Attributes:
        reason: a sentence that says why, or None.
        source: the object that asked: a scope whose deadline passed, a virtual thread that failed, or None.
        bytes_sent: how much of its data a cancelled `sendall` had sent; None for every other call.
    """

    def __init__(self, reason: str | None = None, source: Any = None) -> None:
        super().__init__(reason or "cancelled")
        self.reason = reason
        self.source = source
        self.bytes_sent: int | None = None


class Interrupted(Exception):
    """Raised once, at the current or next checkpoint, by `VirtualThread.interrupt()`. It may be handled."""


class GroupClosed(RuntimeError):
    """The group takes no more threads: it failed, was cancelled, closed or has ended.

    Attributes:
        group: the group that refused.
    """

    def __init__(self, message: str, group: Any = None) -> None:
        super().__init__(message)
        self.group = group


class GroupFull(RuntimeError):
    """A member spawned into a full group whose queue of `max_pending` threads is full as well."""


class ScopeMisuse(RuntimeError):
    """A scope or group was entered twice, or left in another order than it was entered."""


class DeadlockError(RuntimeError):
    """Every virtual thread is parked and nothing is left that could unpark one."""


class ChannelClosed(Exception):
    """The channel was closed: nothing more can be sent, or everything sent has been received."""


if sys.version_info >= (3, 13):
    from queue import ShutDown
else:

    class ShutDown(Exception):
        """A put or get on a queue after its `shutdown()`. From Python 3.13 on this is `queue.ShutDown`."""
