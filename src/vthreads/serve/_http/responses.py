"""The response to one request: status and fields of the application, checked; the framing; the bytes to send.

    NEW ──start()──> STARTED ──first bytes of the body, or finish()──> SENDING ──finish()──> SENT
                        └─start() with exc_info─> STARTED                └──────────────────> BROKEN
    NEW or STARTED ──set_upgraded()──> UPGRADED

The framing is decided when the head is sent. A response that does not keep to its length is BROKEN: the connection
closes before another response could be mixed up with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from email.utils import formatdate
from enum import Enum
from http import HTTPStatus
from math import inf
from types import TracebackType
from typing import Any

from ..._core.runtime import checkpoint
from .._deadlines import RequestScope
from .field_lines import BY_LENGTH, CHUNKED, NO_FRAMING, Fields, Lines, check_fields, lines_of, serialized
from .heads import Head
from .streams import Stream

__all__ = ["Phase", "Response", "error_response", "informational"]

ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]

# RFC 9110, 6.4.1: they never have a body.
WITHOUT_BODY = frozenset([204, 304])
# The ends of a head: what becomes of the connection.
CLOSES, STAYS, STAYS_1_0 = "\r\nConnection: close\r\n\r\n", "\r\n\r\n", "\r\nConnection: keep-alive\r\n\r\n"


class Phase(Enum):
    """The phases of a response; see the diagram in the module's docstring."""

    NEW = "new"
    STARTED = "started"
    SENDING = "sending"
    SENT = "sent"
    BROKEN = "broken"
    # The connection speaks another protocol: what the application still responds is dropped.
    UPGRADED = "upgraded"


# As names of the module, because each response asks several times.
NEW, STARTED, SENDING, SENT = Phase.NEW, Phase.STARTED, Phase.SENDING, Phase.SENT
BROKEN, UPGRADED = Phase.BROKEN, Phase.UPGRADED


class Response:
    """The response to the request with `head`.

    Args:
        head: the request.
        stream: the connection.
        scope: the scope of the request, whose deadline ends with the head of the response.

    Attributes:
        phase: what has happened.
        is_sent_or_sending: whether its head was decided, so that status and fields cannot change any more.
        keeps_alive: whether the connection may be used again after this response.
        status: the status code; 0 before `start`.
        has_body: whether the body of the application is sent.
    """

    __slots__ = (
        "_head_at",
        "_is_chunked",
        "_unsent",
        "_lines",
        "_request",
        "_scope",
        "_stream",
        "has_body",
        "is_sent_or_sending",
        "keeps_alive",
        "phase",
        "status",
    )

    # It refers to no bound methods: those of its owner would make a cycle for each request, which only the garbage
    # collector frees.
    def __init__(self, head: Head, stream: Stream, scope: RequestScope) -> None:
        self._request = head
        self._stream = stream
        self._scope = scope
        # How much was sent before the head.
        self._head_at: float = inf
        self._lines: Lines | None = None
        # Bytes of the body that may still come; None if its length is not known.
        self._unsent: int | None = None
        self._is_chunked = False
        self.phase = NEW
        self.is_sent_or_sending = False
        self.keeps_alive = head.keeps_alive
        self.status = 0
        self.has_body = head.method != "HEAD"

    @property
    def was_seen(self) -> bool:
        """Whether a byte of it was sent, so that the client would mix another response up with it."""
        return self._stream.written > self._head_at

    # --- the application

    def start(self, status: str, fields: Fields, exc_info: ExcInfo | None = None) -> Callable[[bytes], None]:
        """Set status and fields; WSGI's `start_response`. Returns its `write`. Not a checkpoint.

        Raises:
            ValueError: something cannot be sent as it is.
            RuntimeError: called twice without `exc_info`.
        """
        if exc_info is not None and exc_info[1] is not None:
            try:
                if self.is_sent_or_sending:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                # Break the cycle of the traceback and this frame.
                exc_info = None
        elif self.phase is not NEW and self.phase is not UPGRADED:
            raise RuntimeError(f"start_response({status!r}, …) was called before, with {self.status}; call it once")
        lines = lines_of(status, fields)
        if self.phase is not UPGRADED:
            self._lines = lines
            self.status = code = lines.code
            self.has_body = self._request.method != "HEAD" and code not in WITHOUT_BODY
            self.phase = STARTED
        return self.write

    def write(self, data: bytes) -> None:
        """Send a part of the body, and the head with the first part. A checkpoint.

        Raises:
            TypeError: `data` is not bytes.
            RuntimeError: `start` was not called, or the body is already longer than its Content-Length.
            Disconnected: the client has gone.
        """
        data = checked_bytes(data)
        if self.phase is STARTED or self.phase is NEW:
            self._send_with_head(data, None)
        elif self.phase is BROKEN:
            # PEP 3333 asks for an error. An application that writes without end would not notice otherwise.
            raise RuntimeError("the body is longer than its Content-Length; correct the field, or leave it out")
        elif self.phase is SENDING and self.has_body:
            if data:
                self._stream.send(self._framed(data))
        else:
            # The data are dropped without a wait. An application that writes without end must not pin the carrier.
            checkpoint()

    @property
    def wants_more(self) -> bool:
        """Whether parts after the first one have a use: the response has a body, and is not too long yet."""
        return self.has_body and self.phase is not BROKEN

    def write_all(self, parts: list[bytes] | tuple[bytes, ...]) -> None:
        """Send a body that is complete, in one call. A checkpoint; raises as `write`."""
        body = checked_bytes(parts[0]) if len(parts) == 1 else b"".join([checked_bytes(part) for part in parts])
        self._send_with_head(body, len(body))

    def announce(self, length: int) -> int:
        """Send the head of a body of `length` bytes; return how many of them the caller must send itself.

        A checkpoint; raises as `write`.
        """
        self._send_with_head(b"", length)
        if not self.has_body:
            return 0
        size = length if self._unsent is None else min(length, self._unsent)
        self._unsent = None if self._unsent is None else self._unsent - size
        return size

    def finish(self) -> None:
        """End the response. A checkpoint; raises as `write`."""
        if self.phase is STARTED or self.phase is NEW:
            self._send_with_head(b"", 0)
        if self.phase is SENDING:
            if self._is_chunked and self.has_body:
                self._stream.send(b"0\r\n\r\n")
            self.phase = BROKEN if self._unsent else SENT
        if self.phase is BROKEN:
            self.keeps_alive = False

    def set_upgraded(self, status: int) -> None:
        """Handle that the head of the response, with `status`, and all that follows is sent by another protocol."""
        self.status, self._head_at = status, -1
        self.phase = UPGRADED
        self.is_sent_or_sending = True
        self.keeps_alive = False
        self._scope.end_deadline()

    # --- the framing

    def _send_with_head(self, data: bytes, length: int | None) -> None:
        """Send the head, and `data`, which begin the body; `length` is that of the whole body, if it is known."""
        if self.phase is NEW:
            raise RuntimeError(
                "the application has sent a body without a call of start_response; call it before the body"
            )
        head = self._head(length)
        first = head + self._framed(data) if data and self.has_body else head
        self._scope.end_deadline()
        self._head_at = self._stream.written
        self.is_sent_or_sending = True
        if self.phase is not BROKEN:
            self.phase = SENDING
        self._stream.send(first)

    def _head(self, length: int | None) -> bytes:
        # An attempt before this one may have decided otherwise, and have failed before it sent anything.
        self._unsent, self._is_chunked = None, False
        lines = self._lines
        assert lines is not None
        framing = NO_FRAMING
        if lines.length is not None:
            self._unsent = lines.length if self.has_body else None
        elif self.has_body or (self._request.method == "HEAD" and length and self.status not in WITHOUT_BODY):
            # An empty body after HEAD does not show the length: many applications leave out the body themselves.
            if length is not None:
                framing = BY_LENGTH
                self._unsent = length if self.has_body else None
            elif self._request.is_1_1:
                framing = CHUNKED
                self._is_chunked = True
            else:
                # The end of the connection is the end of the body.
                self.keeps_alive = False
        date = "" if lines.has_date else _date_line()
        if not self.keeps_alive:
            end = CLOSES
        elif self._request.is_1_1:
            end = STAYS
        else:
            end = STAYS_1_0
        return lines.head(framing, length or 0, date, end)

    def _framed(self, data: bytes) -> bytes:
        if self._is_chunked:
            return b"%x\r\n%b\r\n" % (len(data), data)
        if self._unsent is not None:
            if len(data) > self._unsent:
                self.phase = BROKEN
                data = data[: self._unsent]
            self._unsent -= len(data)
        return data


def checked_bytes(part: Any) -> bytes:
    """Return a part of the body of an application.

    Raises:
        TypeError: it is not bytes. PEP 3333 has no other kind, and of those with a buffer `len` may count other units.
    """
    if type(part) is bytes:
        return part
    if isinstance(part, bytes):
        return bytes(part)
    raise TypeError(f"a part of the body is {part!r:.100}; return an iterable of bytes, as in [b'text']")


_date_of: tuple[int, str] = (0, "")


def _date_line() -> str:
    """Return the field Date after the end of the line before it, made anew each second."""
    global _date_of
    second = int(time.time())
    if _date_of[0] != second:
        _date_of = (second, f"\r\nDate: {formatdate(second, usegmt=True)}")
    return _date_of[1]


def error_response(status: int, reason: str, *, is_head: bool = False) -> bytes:
    """Return a response of the server itself, after which the connection closes."""
    phrase = HTTPStatus(status).phrase
    body = f"{status} {phrase}: {reason}\n".encode()
    fields = [
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Content-Length", str(len(body))),
        ("Date", formatdate(usegmt=True)),
        ("Connection", "close"),
    ]
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        fields.append(("Retry-After", "1"))
    return serialized(f"{status} {phrase}", fields) + (b"" if is_head else body)


def informational(status: str, fields: Iterable[tuple[Any, Any]]) -> bytes:
    """Return an interim response (1xx).

    Raises:
        ValueError: a field cannot be sent as it is.
    """
    fields = list(fields)
    check_fields(fields)
    return serialized(status, fields)
