"""Heads of the most common form, parsed without httptools: where each has another cookie, no head is known before.

The form is narrow, so that a few operations on the whole bytes decide it: the request line has the form `COMMON_LINE`,
each name was accepted by httptools before, as it is written, and each value is of visible ASCII characters, spaces and
tabs, after one space. llhttp reads fields that decide about the connection or the body as well; here they count only
with their usual values. A test compares the outcome with that of httptools. All other heads, and those that break a
rule, are left to httptools.
"""

from __future__ import annotations

import re

from .heads import Head
from .recent import Recent
from .rules import LONGEST_ORDINARY, is_ordinary

__all__ = ["note_name", "ordinary_head"]

# The request line as in `known_heads.COMMON_LINE`, then any lines.
COMMON_HEAD = re.compile(
    rb"(GET|HEAD|POST|PUT|PATCH|DELETE) (/[A-Za-z0-9\-._~!$&'()*+,;=:@/?%]{0,2000}) HTTP/1\.1\r\n"
    rb"([\t\r\n -~]*)\r\n\r\n",
    re.ASCII,
)
# The fields that are read by llhttp as well. Without a pattern: always left to it.
USUAL_VALUES = {
    b"connection": re.compile(rb"keep-alive|close"),
    b"content-length": re.compile(rb"0|[1-9][0-9]{0,17}"),
}
LEFT_OUT = frozenset([b"proxy-connection", b"transfer-encoding", b"upgrade"])
# Fields that most clients repeat while others change: their lines are kept, with what they mean.
REPEATED = frozenset(
    [
        b"accept",
        b"accept-encoding",
        b"accept-language",
        b"connection",
        b"content-type",
        b"host",
        b"user-agent",
    ]
)
# Together with the longest line, the bound of the memory.
MOST_LINES, LONGEST_LINE = 128, 512
# A client with more names makes them up.
MOST_NAMES = 1_000
BLANKS = b"\t "
COLON, SPACE = b": "

# Names as they are written, with the name of the field, or with b"" for a field that is dropped.
_names: dict[bytes, bytes] = {}
# Lines with their fields.
_lines = Recent(MOST_LINES)


def note_name(written: bytes, name: bytes) -> None:
    """Accept fields whose name is `written` so; `name` is in lower case, or empty if such fields are dropped."""
    if len(_names) < MOST_NAMES and name not in LEFT_OUT:
        _names[written] = name


def ordinary_head(raw: bytes) -> Head | None:
    """Return the head that the bytes `raw` are, if it has the common form and breaks no rule; else None."""
    if len(raw) > LONGEST_ORDINARY:
        return None
    matched = COMMON_HEAD.fullmatch(raw)
    if matched is None:
        return None
    method, target, rest = matched.groups()
    lines = rest.split(b"\r\n")
    # Each CR and LF belongs to an end that was split at.
    if not rest.count(b"\r") == rest.count(b"\n") == len(lines) - 1:
        return None
    fields = []
    for line in lines:
        field = _lines.get(line) or _field_of(line)
        if field is None:
            return None
        if field[0]:
            fields.append(field)
    head = Head(fields, method.decode("ascii"), target)
    return head if is_ordinary(head) else None


def _field_of(line: bytes) -> tuple[bytes, bytes] | None:
    """Return name and value of a line of a head, or None if it has not the common form."""
    colon = line.find(COLON)
    if colon < 0 or len(line) < colon + 3 or line[colon + 1] != SPACE:
        return None
    name = _names.get(line[:colon])
    value = line[colon + 2 :]
    if name is None or value[0] in BLANKS or value[-1] in BLANKS:
        return None
    usual = USUAL_VALUES.get(name)
    if usual is not None and usual.fullmatch(value) is None:
        return None
    field = (name, value)
    if name in REPEATED and len(line) <= LONGEST_LINE:
        _lines.add(line, field)
    return field
