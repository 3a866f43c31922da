"""The bytes of a connection that have arrived and are unused. No syntax but that of lines, and no socket."""

from __future__ import annotations

import re

from .refusals import Refusal

__all__ = ["Input"]

END_OF_HEAD = b"\r\n\r\n"
# A head that is longer than what the rules allow is complete enough to refuse it.
LONGEST_HEAD = 48 << 10
MOST_EMPTY_LINES = 2
LINE_ENDS = (b"\r", b"\n")
BARE_LINE_FEED = re.compile(rb"(?<!\r)\n")


class Input:
    """The received bytes of a connection.

    Attributes:
        last_is_head: whether the last request begins as one with the method HEAD, also if its head is refused.
    """

    __slots__ = ("_data", "_empty_lines", "_start", "last_is_head")

    def __init__(self) -> None:
        # The unused bytes are those of `_data` from `_start` on. A removal of the used ones at each step would copy the
        # rest for each line of a chunked body, so a client with chunks of one byte could keep the processor busy.
        self._data = b""
        self._start = 0
        # Empty lines that were skipped since the last head.
        self._empty_lines = 0
        self.last_is_head = False

    def __len__(self) -> int:
        return len(self._data) - self._start

    def add(self, data: bytes) -> None:
        """Add bytes that have arrived."""
        self._data = self._data[self._start :] + data if self._start < len(self._data) else data
        self._start = 0

    def take_head(self) -> bytes | None:
        """Remove and return the head of a request with its empty line, or None if it is not complete yet.

        Raises:
            Refusal: what has arrived cannot become a head.
        """
        data = self._data
        end = len(data) - len(END_OF_HEAD)
        if not self._start and end > 0 and data.find(END_OF_HEAD) == end and data[:1] not in LINE_ENDS:
            # The usual case: exactly one head has arrived.
            self.last_is_head = data.startswith(b"HEAD ")
            self._data = b""
            self._empty_lines = 0
            return data
        if self._start == len(data):
            return None
        self._skip_empty_lines()
        # RFC 9110, 9.3.2: a response to HEAD has no body, and a refusal comes before the method is parsed.
        self.last_is_head = self._data.startswith(b"HEAD ", self._start)
        end = self._data.find(END_OF_HEAD, self._start)
        if end < 0:
            if len(self) > LONGEST_HEAD:
                # The rules find out which limit it is.
                return self.take(len(self))
            # Without this, a client that ends lines by LF alone would wait for the deadline.
            if BARE_LINE_FEED.search(self._data, self._start):
                raise Refusal(400, "a line does not end with CR LF")
            return None
        self._empty_lines = 0
        return self.take(end + len(END_OF_HEAD) - self._start)

    def _skip_empty_lines(self) -> None:
        # RFC 9112, 2.2: some old clients send an empty line after a body. Counted over all calls: otherwise such lines
        # would keep a thread and a connection for a client that never sends a request.
        while self._empty_lines < MOST_EMPTY_LINES:
            if not self._data.startswith(b"\r\n", self._start):
                return
            self._start += 2
            self._empty_lines += 1
        if self._data.startswith((b"\r", b"\n"), self._start):
            raise Refusal(400, "there are more than 2 empty lines before the request")

    def take(self, most: int) -> bytes:
        """Remove and return up to `most` bytes of those that have arrived."""
        taken = self._data[self._start : self._start + most]
        self._start += len(taken)
        return taken

    def take_line(self, longest: int) -> bytes | None:
        """Remove and return a line without its CR LF, or None if it is not complete yet.

        Raises:
            Refusal: it is longer than `longest`, or does not end with CR LF.
        """
        end = self._data.find(b"\n", self._start)
        if end - self._start > longest or (end < 0 and len(self) > longest):
            raise Refusal(400, f"a line of a chunked body is longer than {longest} bytes")
        if end < 0:
            return None
        line = self.take(end + 1 - self._start)
        if line.find(b"\r") != len(line) - 2:
            raise Refusal(400, "a line of a chunked body does not end with CR LF")
        return line[:-2]
