"""Frames of WebSocket as bytes (RFC 6455, 5.2): the most common form, without the package websockets; no connection.

The package makes and parses a frame in many steps of Python, which take most of the time of a short message. So a data
frame without anything unusual is handled here; all others are left to the package.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["CLOSE", "CLOSE_GOING_AWAY", "GOING_AWAY", "SentFrames", "data_frame", "payload_of", "size_of"]

TEXT, BINARY, CLOSE = 1, 2, 8
# The first byte of a header: the last frame of a message.
FIN = 0x80
# The second byte: the payload is masked (all of a client are); its length.
MASKED, LENGTH = 0x80, 0x7F
# Lengths that mean that the length follows, in 2 or 8 bytes.
IN_2_BYTES, IN_8_BYTES = 126, 127
MASK_SIZE = 4
# Payloads up to this size have their length in at most 2 bytes.
MOST_IN_2_BYTES = (1 << 16) - 1
# A close code of RFC 6455, 7.4.1, and the frame with which a server announces its stop.
GOING_AWAY = 1001
CLOSE_GOING_AWAY = bytes([FIN | CLOSE, 2]) + GOING_AWAY.to_bytes(2)


def data_frame(payload: bytes, is_text: bool) -> bytes:
    """Return the frame of a server for a whole message."""
    first = FIN | TEXT if is_text else FIN | BINARY
    size = len(payload)
    if size < IN_2_BYTES:
        header = bytes((first, size))
    elif size <= MOST_IN_2_BYTES:
        header = bytes((first, IN_2_BYTES)) + size.to_bytes(2, "big")
    else:
        header = bytes((first, IN_8_BYTES)) + size.to_bytes(8, "big")
    return header + payload


def size_of(payload_size: int) -> int:
    """Return the size of a frame of a client with the shortest header for its payload."""
    if payload_size < IN_2_BYTES:
        return 2 + MASK_SIZE + payload_size
    return (4 if payload_size <= MOST_IN_2_BYTES else 10) + MASK_SIZE + payload_size


def payload_of(data: bytes, at: int, most: int, unmask: Callable[[bytes, bytes], bytes]) -> bytes | None:
    """Return the payload of the frame of a client that begins at `at`, if nothing in it is unusual.

    That is: it is complete, the whole of a message with at most `most` bytes, its header is the shortest one, and no
    bit of it belongs to an extension.
    """
    left = len(data) - at
    if left < 2 + MASK_SIZE:
        return None
    first, second = data[at], data[at + 1]
    if first not in (FIN | TEXT, FIN | BINARY) or not second & MASKED:
        return None
    size, start = second & LENGTH, 2
    if size == IN_8_BYTES:
        return None
    if size == IN_2_BYTES:
        size, start = data[at + 2] << 8 | data[at + 3], 4
        if size < IN_2_BYTES:
            return None
    if size > most or start + MASK_SIZE + size > left:
        return None
    start += at + MASK_SIZE
    return unmask(data[start : start + size], data[start - MASK_SIZE : start])


class SentFrames:
    """The end of the last frame in what a library sends: a close frame may only follow there (RFC 6455, 5.2)."""

    __slots__ = ("_header", "_is_in_head", "_unsent", "_tail", "is_closed")

    def __init__(self) -> None:
        # The head of the response comes first.
        self._is_in_head = True
        self._tail = b""
        self._header = b""
        # Bytes of the payload that still come.
        self._unsent = 0
        self.is_closed = False

    @property
    def are_complete(self) -> bool:
        """Whether a new frame may begin now."""
        return not self._is_in_head and not self._header and not self._unsent

    def add(self, data: bytes) -> None:
        """Handle that `data` was sent."""
        if self._is_in_head:
            head, separator, data = (self._tail + data).partition(b"\r\n\r\n")
            if not separator:
                self._tail = head[-3:]
                return
            self._is_in_head = False
        at = 0
        while at < len(data):
            if self._unsent:
                size = min(self._unsent, len(data) - at)
                self._unsent -= size
                at += size
            else:
                self._header += data[at : at + 1]
                at += 1
                self._begin_payload()

    def _begin_payload(self) -> None:
        """Begin the payload if the header is complete."""
        header = self._header
        if len(header) < 2:
            return
        short = header[1] & LENGTH
        size = 2 + {IN_2_BYTES: 2, IN_8_BYTES: 8}.get(short, 0)
        if len(header) == size:
            self._unsent = int.from_bytes(header[2:]) if size > 2 else short
            self.is_closed = self.is_closed or header[0] & 0x0F == CLOSE
            self._header = b""
