"""A request that the server answers itself, with an error, after which the connection closes."""

from __future__ import annotations

__all__ = ["Disconnected", "Refusal"]


class Disconnected(ConnectionError):
    """The client has ended its connection, or has read nothing for too long."""


class Refusal(OSError):
    """The request is refused.

    An `OSError`, because the application gets it from reads of a body: frameworks handle that as a broken connection.

    Attributes:
        status: the status of the response.
        reason: a sentence for the client and the log.
        metric: the label of its counter, if the status alone does not decide it.
    """

    def __init__(self, status: int, reason: str, metric: str = "") -> None:
        super().__init__(f"{status}: {reason}")
        self.status = status
        self.reason = reason
        self.metric = metric
