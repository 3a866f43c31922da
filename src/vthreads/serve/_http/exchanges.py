"""A request with its response, as the application gets it, and the upgrade of its connection to another protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from ..._sync.events import Event
from .._deadlines import RequestScope
from .._limits import Limits
from .._proxies import Client
from .._server import Server
from .bodies import NO_BODY, Body, body_of
from .heads import Head
from .responses import Response, informational
from .streams import Stream

__all__ = ["Exchange"]


class Connection(Protocol):
    """The connection of a request, as its exchange and another protocol use it."""

    server: Server
    limits: Limits

    def hurry(self) -> None:
        """Handle that the server stops."""

    def watch_again(self) -> None:
        """Watch the client again, if data have ended the watch. Not a checkpoint."""

    def watch_for_data(self) -> bool:
        """Report further data; return False if some may wait already. Not a checkpoint."""

    def examine_client(self) -> None:
        """Check after a moment whether the client has gone. Not a checkpoint."""


class Exchange:
    """A request, and the response to it, as the application gets it."""

    __slots__ = (
        "_is_receiving",
        "_noticed_end",
        "body",
        "client",
        "connection",
        "end_upgraded",
        "ended",
        "head",
        "hurry_upgraded",
        "is_upgraded",
        "request_id",
        "response",
        "scope",
        "stream",
        "take_in_upgraded",
    )

    def __init__(
        self, connection: Connection, stream: Stream, client: Client, request_id: str, head: Head, scope: RequestScope
    ) -> None:
        self.connection = connection
        self.stream = stream
        self.head = head
        self.client = client
        self.request_id = request_id
        self.scope = scope
        self.body: Body = NO_BODY
        if head.has_body:
            self.body = body_of(head, stream, connection.limits, self._proceed)
        self.response = Response(head, stream, scope)
        # Of another protocol that has taken over the connection: its end with a close code, its answer to a stop of the
        # server, and the body of a thread for data that arrive while its handler does not receive.
        self.is_upgraded = False
        self.end_upgraded: Callable[[int], None] | None = None
        self.hurry_upgraded: Callable[[], None] | None = None
        self.take_in_upgraded: Callable[[], None] | None = None
        self._is_receiving = False
        self._noticed_end = False

    def __repr__(self) -> str:
        return f"{self.head.method} {self.head.target.decode('latin-1')}"

    # --- another protocol

    def upgrade(self) -> None:
        """Leave the connection to another protocol, which sends the head of the response itself. Not a checkpoint.

        Raises:
            RuntimeError: a response was begun, or it was upgraded before.
        """
        if self.is_upgraded or self.response.is_sent_or_sending:
            raise RuntimeError(
                f"{self!r} cannot be upgraded: it was upgraded or answered before; upgrade it once, first"
            )
        self.is_upgraded = True
        # Its connection may be open for days, mostly without a message.
        self.stream.share()
        self.ended = Event()

    def receive(self, seconds: float | None) -> None:
        """Wait for data of the client in the other protocol. A checkpoint; raises as `Stream.receive`."""
        self._is_receiving = True
        try:
            self.stream.receive(seconds)
        except TimeoutError:
            raise
        except OSError:
            self._noticed_end = True
            raise
        finally:
            self._is_receiving = False
            if not self._noticed_end:
                self.connection.watch_again()

    @property
    def reads_itself(self) -> bool:
        """Whether the other protocol notices the end of the client itself, or has noticed it."""
        return self._is_receiving or self._noticed_end or (self.is_upgraded and self.end_upgraded is None)

    # --- interim responses

    def _proceed(self) -> None:
        if not self.response.is_sent_or_sending:
            self.stream.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def send_early_hints(self, fields: Iterable[tuple[str, str]]) -> None:
        """Send the fields with 103 (RFC 8297), before the response. A checkpoint. HTTP/1.0 has no such response.

        Raises:
            ValueError: a field cannot be sent as it is.
        """
        hints = informational("103 Early Hints", fields)
        if self.head.is_1_1 and not self.response.is_sent_or_sending:
            self.stream.send(hints)
