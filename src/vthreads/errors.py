"""All exceptions that a user may catch.

`Cancelled` is a `BaseException`, so that `except Exception` does not swallow a cancellation; all others are ordinary
exceptions. `Empty` and `Full` are those of the `queue` module.
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

    Do not catch it: the cancelled scope absorbs it. If a call raises it, the call has had no effect.

    Attributes:
        reason: a sentence that explains the cancellation, or None.
        source: the object that requested it: a scope whose deadline expired, a virtual thread that failed, or None.
        bytes_sent: number of bytes that a cancelled `sendall` had sent; None for every other call.
    """

    def __init__(self, reason: str | None = None, source: Any = None) -> None:
        super().__init__(reason or "cancelled")
        self.reason = reason
        self.source = source
        self.bytes_sent: int | None = None


class Interrupted(Exception):
    """Raised once, at the current or next checkpoint, after `VirtualThread.interrupt()`. May be caught."""


class GroupClosed(RuntimeError):
    """The group accepts no more threads: it failed, was cancelled or closed, or has ended.

    Attributes:
        group: the group that refused the thread.
    """

    def __init__(self, message: str, group: Any = None) -> None:
        super().__init__(message)
        self.group = group


class GroupFull(RuntimeError):
    """A member spawned into a full group whose queue of `max_pending` threads is also full."""


class ScopeMisuse(RuntimeError):
    """A scope or group was entered twice, or scopes were left in the wrong order."""


class DeadlockError(RuntimeError):
    """Threads wait for something that can never happen.

    Raised in the root when all virtual threads are parked and nothing is left that could unpark one. Raised in virtual
    threads that wait for each other's locks in a circle, even if other threads can still run.
    """


class ChannelClosed(Exception):
    """The channel was closed: nothing more can be sent, or everything sent has been received."""


if sys.version_info >= (3, 13):
    from queue import ShutDown
else:

    class ShutDown(Exception):
        """Raised by `put` and `get` after the queue's `shutdown()`. From Python 3.13 on this is `queue.ShutDown`."""
