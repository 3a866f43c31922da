"""Bytes of a request head to a `Head`, by httptools and the tables of `rules`.

httptools gets exactly one head at a time, and no body: so it can neither merge trailers into a head nor read a
following request, and the bytes after a head stay in the input of the connection. llhttp is strict by default; what it
refuses (among others: a space before the colon, a repeated or signed Content-Length) is answered with 400.
"""

from __future__ import annotations

from .heads import Head
from .refusals import Refusal
from .rules import check_head, check_raw

try:
    import httptools
except ImportError as error:
    raise ImportError("HTTP needs httptools: install vthreads[serve]", name="httptools") from error

__all__ = ["HeadParser"]


class HeadParser:
    """The parser of one connection."""

    __slots__ = ("_fields", "_parser", "_target")

    def __init__(self) -> None:
        self._parser: httptools.HttpRequestParser | None = None
        self._target = b""
        self._fields: list[tuple[bytes, bytes]] = []

    def parse(self, raw: bytes) -> Head:
        """Return the head that the bytes `raw` are, which end with the empty line.

        Raises:
            Refusal: it is not one, or it breaks a rule.
        """
        check_raw(raw)
        parser = self._parser
        if parser is None:
            parser = httptools.HttpRequestParser(self)
        # Used for another head only if this one is complete for llhttp as well.
        self._parser = None
        self._target, self._fields = b"", []
        try:
            parser.feed_data(raw)
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserInvalidMethodError as error:
            raise Refusal(501, "the method is unknown") from error
        except httptools.HttpParserError as error:
            raise Refusal(400, str(error)) from error
        method, is_1_1 = parser.get_method().decode("ascii"), parser.get_http_version() == "1.1"
        head = Head(self._fields, method, self._target, is_1_1=is_1_1)
        check_head(head)
        if head.length == 0 and head.keeps_alive and not parser.should_upgrade():
            self._parser = parser
        return head

    # --- called by httptools

    def on_url(self, part: bytes) -> None:
        """Add a part of the target."""
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a field."""
        # CGI turns "-" to "_", so X_User would pass for X-User; and HTTP_PROXY is a setting of HTTP clients (httpoxy,
        # CVE-2016-5385).
        if b"_" not in name and (name := name.lower()) != b"proxy":
            self._fields.append((name, value))
