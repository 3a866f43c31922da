"""Heads of the common form, which are parsed without httptools: their outcome is the one that httptools has."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vthreads.serve._http import ordinary_heads
from vthreads.serve._http.ordinary_heads import MOST_NAMES, ordinary_head
from vthreads.serve._http.parser import HeadParser
from vthreads.serve._http.refusals import Refusal

from .test_known_heads import FIELDS, LINES, contents
from .test_rules import ACCEPTED, REFUSED

COMMON = (
    b"POST /a%20b?c=d HTTP/1.1\r\nHost: a:80\r\nUser-Agent: b c\r\nConnection: close\r\nX_User: d\r\n"
    b"Content-Length: 12\r\nCookie: e=f; g=h\r\n\r\n"
)
# Beside those of `test_known_heads`: what is near to the common form.
NEAR = [
    b"Host:a",
    b"Host:  a",
    b"Host: a ",
    b"Host: a\t",
    b"Host:\ta",
    b"Host : a",
    b"Host:",
    b"Host: ",
    b"hOST: a",
    b"Host\t: a",
    b": a",
    b"Content-Length: 0",
    b"Content-Length: 007",
    b"Content-Length: +3",
    b"Content-Length: 3, 3",
    b"Content-Length: 1234567890123456789",
    b"content-length: 3",
    b"Connection: keep-alive",
    b"Connection: Keep-Alive",
    b"Connection: close, upgrade",
    b"Proxy-Connection: upgrade",
    b"Upgrade: h2c",
    b"transfer-encoding: chunked",
    b"Transfer-Encoding: identity",
    b"X: a\tb",
    b"X: a\rb",
    b"X: a\nb",
    b"X: a\r",
    b"X: \xe4",
    b"X: \x7f",
    b"X: a: b",
    b"\tX: a",
    b"Cookie: a=b",
    b"X-Request-Id: 1",
]


def outcome(parse, raw):
    """The contents of the head, or the status and reason of the refusal."""
    try:
        return contents(parse(raw))
    except Refusal as refusal:
        return refusal.status, refusal.reason


def check(raw):
    expected = outcome(HeadParser()._parsed, raw)
    assert expected == outcome(HeadParser().parse, raw)
    # Again, with the names and lines that are known now.
    assert expected == outcome(HeadParser().parse, raw)


@pytest.fixture(autouse=True)
def names():
    """Names that httptools has accepted, and no others."""
    ordinary_heads._names.clear()
    for raw in [COMMON, *ACCEPTED.values()]:
        HeadParser()._parsed(raw)


def test_the_common_form_needs_no_httptools():
    head = ordinary_head(COMMON)
    assert head is not None
    assert ("POST", b"/a%20b?c=d", True, 12) == (head.method, head.target, head.is_1_1, head.length)
    assert not head.keeps_alive
    names = [b"host", b"user-agent", b"connection", b"content-length", b"cookie"]
    assert names == [name for name, _ in head.fields]


def test_a_name_is_read_by_httptools_first():
    raw = b"GET / HTTP/1.1\r\nHost: a\r\nX-Not-Seen-Yet: b\r\n\r\n"
    assert ordinary_head(raw) is None
    expected = contents(HeadParser().parse(raw))
    head = ordinary_head(raw)
    assert head is not None
    assert expected == contents(head)


@pytest.mark.parametrize("name", [*ACCEPTED, *REFUSED])
def test_each_case_of_the_rules_has_the_same_outcome(name):
    check(ACCEPTED[name] if name in ACCEPTED else REFUSED[name][1])


def test_each_change_of_one_byte_has_the_same_outcome():
    others = [bytes([byte]) for byte in b'\0\t\n\r !"#%,-/09:;@AZ_az~\x7f\x80\xff']
    for place in range(len(COMMON)):
        before, after = COMMON[:place], COMMON[place + 1 :]
        check(before + after)
        for other in others:
            check(before + other + after)
            check(before + other + COMMON[place:])


@given(st.sampled_from(LINES), st.lists(st.sampled_from([*FIELDS, *NEAR]), max_size=5))
def test_fields_in_any_order_have_the_same_outcome(line, fields):
    check(b"\r\n".join([line, *fields, b"", b""]))
    check(b"\r\n".join([line, b"Host: a", *fields, b"", b""]))


def test_a_head_is_not_changed_by_the_next_one_with_equal_lines():
    first = ordinary_head(COMMON)
    second = ordinary_head(COMMON.replace(b"POST", b"PUT"))
    assert first is not None
    assert second is not None
    second.fields.clear()
    assert b"a:80" == dict(first.fields)[b"host"]


# CWE-770: a client can make up names without end.
def test_clients_cannot_fill_the_memory():
    for number in range(MOST_NAMES + 10):
        HeadParser().parse(b"GET / HTTP/1.1\r\nHost: a\r\nMade-Up-%d: x\r\n\r\n" % number)
    assert len(ordinary_heads._names) == MOST_NAMES
