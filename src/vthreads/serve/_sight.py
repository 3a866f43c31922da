"""Records of requests: the access log and the numbers of the worker. It does not depend on connections."""

from __future__ import annotations

import time
from typing import Any

from ._access_log import AccessLog
from ._board import Board, Row

__all__ = ["Sight"]

REASON_OF = {413: "too_large", 414: "too_large", 431: "too_large", 408: "too_slow", 504: "deadline"}


class Sight:
    """Records the requests of one worker.

    Args:
        row: its numbers; None: a private row.
        access_log: the log, or None.
    """

    __slots__ = ("_log", "_seen_dropped", "ended_requests", "row")

    def __init__(self, row: Row | None = None, access_log: AccessLog | None = None) -> None:
        self.row = row or Board(1).rows[0]
        self._log = access_log
        self._seen_dropped = 0
        self.ended_requests = 0

    def count_dropped(self) -> None:
        """Add the lines that the access log has dropped since the last call to the numbers."""
        if self._log is not None:
            dropped = self._log.dropped
            self.row.add("access_log_dropped", dropped - self._seen_dropped)
            self._seen_dropped = dropped

    def refused(self, status: int, reason: str) -> None:
        """Count a request that the server itself has answered, or that it has cancelled (status 499)."""
        if status == 500:
            self.row.add("failures")
        else:
            self.row.refused(reason or REASON_OF.get(status, "malformed"))

    def ended(self, client: str, request_id: str, head: Any, status: int, seconds: float, sent: int) -> None:
        """Record a request; `head` is None if its head was refused."""
        self.ended_requests += 1
        self.row.answered(status, seconds, sent)
        log = self._log
        if log is None:
            return
        request = head.of_log if head is not None else log.lines.request("-", "-", "-", "", "")
        if request is None:
            request = self._of_head(head)
        log.add(log.lines.line(time.time(), client, request, status, sent, seconds, request_id))

    def _of_head(self, head: Any) -> Any:
        """Return what the lines of requests with this head have in common; kept with it, since heads recur."""
        assert self._log is not None
        referer = agent = ""
        for name, value in head.fields:
            if name == b"referer":
                referer = value.decode("latin-1")
            elif name == b"user-agent":
                agent = value.decode("latin-1")
        version = "HTTP/1.1" if head.is_1_1 else "HTTP/1.0"
        head.of_log = self._log.lines.request(head.method, head.target.decode("latin-1"), version, referer, agent)
        return head.of_log
