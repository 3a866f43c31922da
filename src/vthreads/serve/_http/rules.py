"""The table of what is checked in the head of a request, above httptools; tests read it.

httptools (llhttp) refuses much by itself: see `parser`. A rule is here if llhttp accepts what a server must refuse.
Each row names the RFC and section that it enforces. The first rule that finds a fault decides the status.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from .heads import Head
from .refusals import Refusal

__all__ = ["HEAD_RULES", "RAW_RULES", "Rule", "check_head", "check_raw"]

LONGEST_REQUEST_LINE = 8 << 10
LONGEST_FIELDS = 32 << 10
MOST_FIELDS = 100

# All control characters except HTAB, CR and LF.
CONTROLS = bytes({*range(0x20), 0x7F} - {0x09, 0x0D, 0x0A})
# RFC 3986: the characters of a registered name, an IPv4 address or an IP literal in brackets; then a port.
HOST = re.compile(rb"(?:[A-Za-z0-9\-._~!$&'()*+,;=%]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
LENGTH = re.compile(rb"[0-9]{1,18}")
ABSOLUTE = re.compile(rb"https?://[^/?#]+(?:[/?].*)?", re.I)
VERSION = re.compile(rb"HTTP/[0-9]\.[0-9]")


class Rule(NamedTuple):
    """One check: `finds` returns whether the request has the fault."""

    status: int
    section: str
    fault: str
    finds: Callable[..., bool]


def _has_bare_line_end(raw: bytes) -> bool:
    pairs = raw.count(b"\r\n")
    return raw.count(b"\r") != pairs or raw.count(b"\n") != pairs


def _version_of(raw: bytes) -> bytes:
    return raw[: raw.find(b"\r\n")].rpartition(b" ")[2]


# The checks of the bytes of a head, before httptools gets it. The head ends with an empty line.
RAW_RULES = (
    Rule(
        414,
        "RFC 9112, 3",
        "the request line is longer than 8 KiB",
        lambda raw: raw.find(b"\r\n") > LONGEST_REQUEST_LINE,
    ),
    Rule(
        431,
        "RFC 6585, 5",
        "the fields are longer than 32 KiB",
        lambda raw: len(raw) - raw.find(b"\r\n") > LONGEST_FIELDS,
    ),
    Rule(
        400,
        "RFC 9110, 5.5",
        "a control character is in the head",
        lambda raw: len(raw.translate(None, CONTROLS)) != len(raw),
    ),
    Rule(400, "RFC 9112, 2.2", "a line does not end with CR LF", _has_bare_line_end),
    Rule(400, "RFC 9112, 5.2", "a field is folded", lambda raw: b"\r\n " in raw or b"\r\n\t" in raw),
    Rule(400, "RFC 9112, 2.3", "the request line has no version", lambda raw: not VERSION.fullmatch(_version_of(raw))),
    Rule(
        505,
        "RFC 9110, 15.6.6",
        "the version is neither HTTP/1.0 nor HTTP/1.1",
        lambda raw: _version_of(raw)[5:7] != b"1.",
    ),
    Rule(
        505, "RFC 9110, 15.6.6", "the version is neither HTTP/1.0 nor HTTP/1.1", lambda raw: _version_of(raw)[7:] > b"1"
    ),
    Rule(
        400,
        "RFC 9112, 3",
        "the parts of the request line are not separated by one space each",
        lambda raw: raw.count(b" ", 0, raw.find(b"\r\n")) != 2,
    ),
)


def _is_wrong_host(head: Head) -> bool:
    return any(not HOST.fullmatch(host) for host in head.hosts)


def _is_wrong_target(head: Head) -> bool:
    target = head.target
    if target[:1] == b"/":
        return b"#" in target
    if target == b"*":
        return head.method != "OPTIONS"
    return not ABSOLUTE.fullmatch(target) or b"#" in target or not HOST.fullmatch(head.authority)


# The checks of a parsed head.
HEAD_RULES = (
    Rule(431, "RFC 6585, 5", "there are more than 100 fields", lambda head: len(head.fields) > MOST_FIELDS),
    Rule(501, "RFC 9110, 9.3.6", "CONNECT is not supported", lambda head: head.method == "CONNECT"),
    Rule(400, "RFC 9112, 3.2", "Host is missing", lambda head: head.is_1_1 and not head.hosts),
    Rule(400, "RFC 9112, 3.2", "there is more than one Host", lambda head: len(head.hosts) > 1),
    Rule(400, "RFC 9112, 3.2", "Host has characters that are not of a host and a port", _is_wrong_host),
    Rule(400, "RFC 9112, 3.2", "the form of the target does not fit the method", _is_wrong_target),
    Rule(400, "RFC 9112, 6.3", "there is more than one Content-Length", lambda head: len(head.lengths) > 1),
    Rule(
        400,
        "RFC 9110, 8.6",
        "Content-Length is not a number",
        lambda head: any(not LENGTH.fullmatch(length) for length in head.lengths),
    ),
    Rule(
        400,
        "RFC 9112, 6.1",
        "Transfer-Encoding and Content-Length are both there",
        lambda head: bool(head.codings and head.lengths),
    ),
    Rule(
        400,
        "RFC 9112, 6.1",
        "Transfer-Encoding is in a request of HTTP/1.0",
        lambda head: bool(head.codings) and not head.is_1_1,
    ),
    Rule(
        400,
        "RFC 9112, 6.3",
        "Transfer-Encoding is not chunked alone",
        lambda head: bool(head.codings) and head.codings != [b"chunked"],
    ),
    Rule(
        417,
        "RFC 9110, 10.1.1",
        "Expect is not 100-continue",
        lambda head: head.expectation not in (b"", b"100-continue"),
    ),
)


# Most heads have this form, in which no rule of `RAW_RULES` finds a fault, and one match costs a tenth of the rules.
# Other heads are checked row by row; a test compares the two.
ORDINARY = re.compile(rb"[A-Z]+ [!-~\x80-\xff]+ HTTP/1\.[01]\r\n(?:[!-~\x80-\xff][\t -~\x80-\xff]*\r\n)*\r\n", re.ASCII)


def check_raw(raw: bytes) -> None:
    """Check the bytes of a head.

    Raises:
        Refusal: it breaks a rule.
    """
    if len(raw) <= LONGEST_REQUEST_LINE and ORDINARY.fullmatch(raw) is not None:
        return
    for rule in RAW_RULES:
        if rule.finds(raw):
            raise Refusal(rule.status, rule.fault)


def _is_ordinary(head: Head) -> bool:
    """Return whether a head has the most common form, in which no rule of `HEAD_RULES` finds a fault."""
    return (
        head.target[:1] == b"/"
        and b"#" not in head.target
        and len(head.hosts) == 1
        and HOST.fullmatch(head.hosts[0]) is not None
        and not head.codings
        and (not head.lengths or (len(head.lengths) == 1 and LENGTH.fullmatch(head.lengths[0]) is not None))
        and not head.expectation
        and head.method != "CONNECT"
        and len(head.fields) <= MOST_FIELDS
    )


def check_head(head: Head) -> None:
    """Check a parsed head.

    Raises:
        Refusal: it breaks a rule.
    """
    if _is_ordinary(head):
        return
    for rule in HEAD_RULES:
        if rule.finds(head):
            raise Refusal(rule.status, rule.fault)
