"""The body of a request, as the file object that WSGI calls `wsgi.input`: read from the connection when it is read.

    NEW ──first read, "100 Continue" if expected──> READING ──last byte──> ENDED
     └──────────────── nothing to read ────────────────────────────────────^

A subclass for each framing defines `_next_piece`. Trailers of a chunked body are dropped: merged into the head they
could replace its fields (RFC 9110, 6.5.1).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from ..._core.runtime import now
from .._limits import Limits
from .heads import Head
from .refusals import Refusal
from .streams import Stream

__all__ = ["NO_BODY", "Body", "body_of"]

# Seconds of waiting for the client in which any rate is accepted.
RATE_COUNTS_AFTER = 5.0
# A body that was not read is read up to this size, so that the connection can be used again.
DISCARDED = 64 << 10
# Digits of the size of a chunk, and bytes of its extensions.
LONGEST_SIZE, LONGEST_EXTENSION = 15, 256
LONGEST_TRAILERS = 4 << 10
# RFC 9112, 7.1: the size in hexadecimal digits, then extensions. 16 digits do not fit a Content-Length either.
CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[^\0-\x08\x0a-\x1f\x7f]*)?")
# RFC 9112, 5: a name that is a token, a colon, a value.
TRAILER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[^\0-\x08\x0a-\x1f\x7f]*")


class _NoStream:
    """The stream of a request without a body, from which nothing is received."""

    input = None


class Body:
    """The body of one request; used by one thread at a time.

    Args:
        stream: where its bytes arrive.
        limits: the size and rate that it must keep to.
        proceed: sends "100 Continue"; None if the client does not wait for that.

    Attributes:
        refusal: why a read has failed; the connection closes then.
    """

    __slots__ = (
        "_data",
        "_limits",
        "_proceed",
        "_received",
        "_source",
        "_stream",
        "_waited",
        "has_ended",
        "refusal",
    )

    def __init__(self, stream: Stream, limits: Limits, proceed: Callable[[], None] | None) -> None:
        self._stream = stream
        self._source = stream.input
        self._limits = limits
        self._proceed = proceed
        self._data = b""
        # Seconds spent in waits for the client. The time between two reads is the application's.
        self._waited = 0.0
        self._received = 0
        self.has_ended = False
        self.refusal: Refusal | None = None

    # --- the file object

    def read(self, size: int | None = -1, /) -> bytes:
        """Return `size` bytes, fewer at the end of the body; -1 or None: all that is left. A checkpoint.

        Raises:
            Refusal: the body breaks a limit or its framing.
            Disconnected: the client has gone.
        """
        wanted = float("inf") if size is None or size < 0 else size
        pieces = [self._data]
        found = len(self._data)
        while found < wanted and (piece := self._more()):
            pieces.append(piece)
            found += len(piece)
        return self._split(b"".join(pieces), min(found, wanted))

    def readline(self, size: int | None = -1, /) -> bytes:
        """Return a line with its end, or at most `size` bytes of it. A checkpoint; raises as `read`."""
        wanted = float("inf") if size is None or size < 0 else size
        data = self._data
        searched = 0
        while (end := data.find(b"\n", searched) + 1) == 0 and len(data) < wanted:
            searched = len(data)
            piece = self._more()
            if not piece:
                break
            data += piece
        return self._split(data, min(end or len(data), wanted))

    def readlines(self, hint: int | None = -1, /) -> list[bytes]:
        """Return the lines that are left, or fewer of them: at least `hint` bytes. A checkpoint; raises as `read`."""
        wanted = float("inf") if hint is None or hint <= 0 else hint
        lines = []
        size = 0
        for line in self:
            lines.append(line)
            size += len(line)
            if size >= wanted:
                break
        return lines

    def __iter__(self) -> Iterator[bytes]:
        while line := self.readline():
            yield line

    def _split(self, data: bytes, size: float) -> bytes:
        self._data = data[int(size) :]
        return data[: int(size)]

    # --- for the connection

    def discard(self) -> bool:
        """Read the rest, if it is short and correct; return whether the next request may follow. A checkpoint.

        Called after the response, so a refusal can no longer be answered.

        Raises:
            Disconnected: the client has gone.
        """
        if self.has_ended:
            return True
        if self._proceed is not None or self.refusal is not None:
            # The client may send the body or not, so the begin of the next request is unknown.
            return False
        self._data = b""
        left = DISCARDED
        try:
            while left > 0 and (piece := self._more()):
                left -= len(piece)
        except Refusal:
            return False
        return self.has_ended

    def _more(self) -> bytes:
        """Return the next bytes of the body, none at its end."""
        if self.has_ended:
            return b""
        if self.refusal is not None:
            raise self.refusal
        if self._proceed is not None:
            self._proceed()
            self._proceed = None
        try:
            piece = self._next_piece()
            self._received += len(piece)
            if self._received > self._limits.body_bytes:
                raise Refusal(413, f"the body is larger than {self._limits.body_bytes:.0f} bytes")
        except Refusal as refusal:
            self.refusal = refusal
            raise
        return piece

    def _receive(self) -> None:
        """Wait for more bytes of the client."""
        rate = self._limits.body_rate
        # It may be silent until its rate falls below the limit.
        patience = max(RATE_COUNTS_AFTER, self._received / rate) - self._waited if rate else None
        began = now()
        try:
            if patience is not None and patience <= 0:
                raise TimeoutError
            self._stream.receive(patience)
        except TimeoutError:
            raise Refusal(408, f"the body comes slower than {rate:g} bytes a second") from None
        finally:
            self._waited += now() - began

    def _next_piece(self) -> bytes:
        """Return the next bytes; set `has_ended` with the last ones."""
        raise NotImplementedError(f"{type(self).__name__} knows its framing")


class _NoBody(Body):
    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(_NoStream, None, None)  # type: ignore[arg-type]  # it reads nothing
        self.has_ended = True


# Shared by all requests without a body: its state never changes.
NO_BODY = _NoBody()


class _SizedBody(Body):
    __slots__ = ("_unread",)

    _unread: int

    def _next_piece(self) -> bytes:
        if not len(self._source):
            self._receive()
        piece = self._source.take(self._unread)
        self._unread -= len(piece)
        self.has_ended = not self._unread
        return piece


class _ChunkedBody(Body):
    # Bytes of the chunk that were not read; 0 before the first one; -1 for the line end after its data.
    __slots__ = ("_unread",)

    _unread: int

    def _next_piece(self) -> bytes:
        if self._unread <= 0:
            if self._unread < 0 and self._line(0):
                raise Refusal(400, "the data of a chunk are longer than its size")
            line = self._line(LONGEST_SIZE + LONGEST_EXTENSION)
            found = CHUNK_SIZE.fullmatch(line)
            if found is None:
                raise Refusal(400, "the size of a chunk is not a hexadecimal number")
            if len(line) - len(found[1]) > LONGEST_EXTENSION:
                raise Refusal(400, f"the extensions of a chunk are longer than {LONGEST_EXTENSION} bytes")
            self._unread = int(found[1], 16)
            if not self._unread:
                self._drop_trailers()
                self.has_ended = True
                return b""
        if not len(self._source):
            self._receive()
        piece = self._source.take(self._unread)
        self._unread = self._unread - len(piece) or -1
        return piece

    def _drop_trailers(self) -> None:
        left = LONGEST_TRAILERS
        while line := self._line(left):
            # Another parser could find the next request in a line that is not a field.
            if not TRAILER.fullmatch(line):
                raise Refusal(400, "a trailer is not a field")
            left -= len(line)

    def _line(self, longest: int) -> bytes:
        while (line := self._source.take_line(longest + 2)) is None:
            self._receive()
        return line


def body_of(head: Head, stream: Stream, limits: Limits, proceed: Callable[[], None]) -> Body:
    """Return the body of the request with `head`.

    Raises:
        Refusal: its length is above the limit.
    """
    expects = proceed if head.expectation and head.is_1_1 else None
    length = head.length
    if length == 0:
        return NO_BODY
    if length is None:
        chunked = _ChunkedBody(stream, limits, expects)
        chunked._unread = 0
        return chunked
    if length > limits.body_bytes:
        raise Refusal(413, f"the body is larger than {limits.body_bytes:.0f} bytes")
    sized = _SizedBody(stream, limits, expects)
    sized._unread = length
    return sized
