"""The limits of an HTTP server and their defaults, as one table; 0 means no limit. This module enforces nothing."""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import inf

from .._core.arguments import checked_timeout

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of an HTTP server; 0 means no limit.

    Attributes:
        header_seconds: from the first byte of a request to the end of its head; then 408.
        handshake_seconds: for a TLS handshake; then the connection is closed.
        idle_seconds: a connection without a request; then it is closed.
        body_bytes: size of a request body; above it 413.
        body_rate: bytes a second that a request body must reach after 5 s; below it 408.
        write_seconds: a response without progress; then the connection is reset.
        request_seconds: from the head of a request to the head of its response; then the handler is cancelled, and the
            client gets 504.
        gone_seconds: a client that has shut down its sending side; then the handler is cancelled. A client whose
            connection is reset or hung up is gone at once.
        in_flight: requests that are handled at once; above it 503. A request does not count while it waits for its
            client, to send the body or to read the response, nor after an upgrade to WebSocket.
        age_seconds: from the arrival of a request to its start; above it 503, so that an overloaded server spends its
            time on requests whose clients still wait.
        connections: connections that are open at once; above it none is accepted.
    """

    header_seconds: float = 10.0
    handshake_seconds: float = 10.0
    idle_seconds: float = 75.0
    body_bytes: float = 64 << 20
    body_rate: float = 240.0
    write_seconds: float = 60.0
    request_seconds: float = 60.0
    gone_seconds: float = 1.0
    in_flight: float = 1_000
    age_seconds: float = 1.0
    connections: float = 10_000

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            number = checked_timeout(value, field.name)
            if number is None or number < 0:
                raise ValueError(f"{field.name} must be >= 0 (0: no limit), got {value!r}")
            # A rate is a lower bound, so there 0 itself means that every rate is accepted.
            if value == 0 and field.name != "body_rate":
                object.__setattr__(self, field.name, inf)
