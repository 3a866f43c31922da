"""The fields of a response as the application gives them: checked, and as lines to send. No framing, no state.

Applications repeat themselves, so the outcome of the checks is kept, of names and of all fields of a response. Where
only the values are new, the lines of all fields are checked at once, by counting their ends, and one by one only if
something is wrong or unusual.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from .recent import Recent

__all__ = ["Fields", "Lines", "check_fields", "lines_of", "serialized"]

Fields = list[tuple[str, str]]

TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# RFC 9110, 5.5 and RFC 9112, 4: CR, LF and NUL would begin another field or response. PEP 3333: text is Latin-1.
STATUS = re.compile(r"[1-9][0-9]{2}(?: [^\r\n\0\u0100-\U0010ffff]*)?")
UNSAFE = re.compile(r"[\r\n\0\u0100-\U0010ffff]")
LENGTH = re.compile(r"[0-9]+")
# RFC 9110, 7.6.1: they belong to the connection, which the server owns. PEP 3333 forbids them to applications.
HOP_BY_HOP = frozenset(
    [
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ]
)
# RFC 9110, 8.6: a response with this status has no Content-Length.
NO_CONTENT = 204
# The names that the server has to know.
KNOWN = frozenset(["content-length", "date", "set-cookie"])
# Names and statuses that are kept. An application with more of them generates them, which would fill the memory.
MOST_KEPT = 1_000

# Accepted names as written, with the name in lower case if it is one of `KNOWN`, else "".
_names: dict[str, str] = {}
# Accepted statuses, with their codes.
_codes: dict[str, int] = {}
# The lines of the server that say how long the body is.
NO_FRAMING, BY_LENGTH, CHUNKED = 0, 1, 2
FRAMINGS = ("", "\r\nContent-Length: %d", "\r\nTransfer-Encoding: chunked")
# Together with the longest text, the bound of the memory.
MOST_LINES, LONGEST_LINES = 128, 1 << 10


class Lines:
    """The checked status and fields of a response.

    Attributes:
        text: the status line and the lines of the fields, without the end of the last one.
        code: the status code.
        length: the value of Content-Length; None if there is none.
        has_date: whether the field Date is among them.
        may_recur: whether another response may have the same.

    Raises:
        ValueError: something cannot be sent as it is.
    """

    __slots__ = ("_date", "_end", "_framing", "_head", "_size", "code", "has_date", "length", "may_recur", "text")

    def __init__(self, status: str, fields: Fields) -> None:
        self.code = code = _codes.get(status) or _code_of(status)
        self.length: int | None = None
        self.has_date = False
        # False with a cookie, which belongs to one client.
        self.may_recur = True
        # The last head that was made of them, and what it was made with.
        self._head = b""
        self._framing, self._size = NO_FRAMING, 0
        self._date = self._end = ""
        # RFC 9112, 4: the space stays if there is no phrase.
        lines = [f"HTTP/1.1 {status}" if len(status) > 3 else f"HTTP/1.1 {status} "]
        for name, value in fields:
            known = _names.get(name)
            if known is None:
                known = _checked_name(name)
            if known:
                self._set_known(known, value)
                if code == NO_CONTENT and known == "content-length":
                    continue
            lines.append(name + ": " + value)
        self.text = text = "\r\n".join(lines)
        ends = len(lines) - 1
        if not text.isascii() or text.count("\n") != ends or text.count("\r") != ends or "\0" in text:
            check_fields(fields)

    def head(self, framing: int, size: int, date: str, end: str) -> bytes:
        """Return the whole head. Most responses of a second have the same one, so the last one is kept.

        Args:
            framing: NO_FRAMING, BY_LENGTH or CHUNKED.
            size: the length of the body, for BY_LENGTH.
            date: the line of the field Date, or nothing.
            end: the lines that follow, with the empty one.
        """
        if not (framing == self._framing and size == self._size and date is self._date and end is self._end):
            text = FRAMINGS[framing]
            if framing == BY_LENGTH:
                text = text % size
            self._head = f"{self.text}{text}{date}{end}".encode("latin-1")
            self._framing, self._size, self._date, self._end = framing, size, date, end
        return self._head

    def _set_known(self, name: str, value: str) -> None:
        if name == "set-cookie":
            self.may_recur = False
            return
        if name == "date":
            self.has_date = True
            self.may_recur = False
            return
        if self.length is not None or not LENGTH.fullmatch(value):
            raise ValueError(f"Content-Length is {value!r}, or there is more than one; give one number")
        self.length = int(value)


# By status and fields. They do not change, so responses share them.
_lines = Recent(MOST_LINES)


def lines_of(status: str, fields: Fields) -> Lines:
    """Return the lines of a response; raises as `Lines`."""
    if type(fields) is not list:
        # An iterator gives its fields once, and they are read for the key and for the lines.
        fields = list(fields)
    try:
        key = (status, *fields)
        lines: Lines | None = _lines.get(key)
    except TypeError:
        # A field is a list, for example, which has no hash.
        return _made(status, fields)
    if lines is None:
        lines = _made(status, fields)
        if lines.may_recur and len(lines.text) <= LONGEST_LINES:
            _lines.add(key, lines)
    return lines


def _made(status: str, fields: Fields) -> Lines:
    try:
        return Lines(status, fields)
    except (TypeError, ValueError):
        # Types are not checked before: this costs nothing for fields that are in order.
        for field in fields:
            _check_pair(field)
        raise


def _check_pair(field: Any) -> None:
    try:
        name, value = field
        is_pair = isinstance(name, str) and isinstance(value, str)
    except (TypeError, ValueError):
        is_pair = False
    if not is_pair:
        raise TypeError(f"the field {field!r:.100} is not a pair of strings; give its name and its value as str")


def _code_of(status: str) -> int:
    if not isinstance(status, str) or not STATUS.fullmatch(status):
        raise ValueError(f"the status is {status!r}; give three digits, a space and a phrase of one Latin-1 line")
    if status[0] == "1":
        raise ValueError(f"the status is {status!r}; a response of the application is final (2xx to 5xx)")
    code = int(status[:3])
    if len(_codes) < MOST_KEPT:
        _codes[status] = code
    return code


def _checked_name(name: str) -> str:
    if not TOKEN.fullmatch(name):
        raise ValueError(f"{name!r} is not a name of a field; use letters, digits and hyphens")
    lower = name.lower()
    if lower in HOP_BY_HOP:
        raise ValueError(f"{name} belongs to the connection, which the server owns; leave it out")
    known = lower if lower in KNOWN else ""
    if len(_names) < MOST_KEPT:
        _names[name] = known
    return known


def check_fields(fields: Iterable[tuple[str, str]]) -> None:
    """Check each name and value.

    Raises:
        ValueError: one cannot be sent as it is.
    """
    for name, value in fields:
        _checked_name(name)
        if UNSAFE.search(value):
            raise ValueError(
                f"the value {value!r} of {name} has CR, LF, NUL or a character outside of Latin-1; remove or encode it"
            )


def serialized(status: str, fields: Iterable[tuple[Any, Any]]) -> bytes:
    """Return a head of the server itself."""
    lines = [f"HTTP/1.1 {status}", *[f"{name}: {value}" for name, value in fields], "", ""]
    return "\r\n".join(lines).encode("latin-1")
