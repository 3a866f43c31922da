"""The scope of a request, and `set_deadline`, by which a handler changes its deadline. No protocol."""

from __future__ import annotations

from math import inf
from typing import Any

from .._core.arguments import checked_seconds
from .._core.cancel import CancelNode, CancelScope
from .._core.current import running

__all__ = ["RequestScope", "request_scope_of", "set_deadline"]

# Seconds that the cleanup of a cancelled handler may block.
CLEANUP_SECONDS = 2.0


class RequestScope(CancelScope):
    """The scope in which a thread handles requests, one after another, until one is cancelled.

    A scope for each request would cost as much as a small handler. Its timer is not cancelled after a request, for the
    same reason: if it expires before the deadline of a later request, it begins anew.
    """

    __slots__ = ("_timer_at", "head_was_sent")

    def __init__(self) -> None:
        super().__init__(cleanup_grace=CLEANUP_SECONDS)
        self.head_was_sent = True
        self._timer_at = inf

    def begin(self, seconds: float, now: float) -> None:
        """Start the limit of a request: the head of its response must be sent within `seconds` from `now` on."""
        self.head_was_sent = False
        self._seconds = seconds
        self._deadline = deadline = now + seconds
        if deadline < inf and (self._timer is None or self._timer_at > deadline):
            self._arm()

    def end_deadline(self) -> None:
        """Handle that the head of the response is sent, or that the request has ended without."""
        # From here on, each write has its own limit.
        self.head_was_sent = True
        self._deadline = inf

    def _arm(self) -> None:
        super()._arm()
        self._timer_at = self._deadline

    def _expire(self) -> None:
        self._timer = None
        assert self._thread is not None
        if self._deadline <= self._thread._scheduler.clock.now():
            super()._expire()
        else:
            # The deadline of an earlier request, which has ended.
            self._arm()


def request_scope_of(thread: Any) -> RequestScope | None:
    """Return the scope of the request that `thread` works for; None: it works for none. Not a checkpoint."""
    node: CancelNode | None = thread._innermost
    while node is not None and not isinstance(node, RequestScope):
        node = node._parent
    return node


def set_deadline(seconds: float | None) -> None:
    """Give the handler of the current request `seconds` from now on to send the head of its response.

    Replaces the limit of the server, in both directions, for this request. Does nothing when the head was sent already.
    May be called by the handler, and by members of groups inside it. Not a checkpoint.

    Args:
        seconds: None means no limit.

    Raises:
        RuntimeError: the caller is not inside a request.
    """
    span = checked_seconds(seconds, "seconds")
    thread = running()
    node = None if thread is None else request_scope_of(thread)
    if node is None:
        raise RuntimeError(f"set_deadline({seconds!r}) outside a request; call it in a handler of vthreads.serve")
    assert thread is not None
    if not node.head_was_sent:
        node.deadline = thread._scheduler.clock.now() + span
