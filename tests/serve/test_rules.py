"""The tables above httptools: each row refuses what it names, with the section of its RFC; ordinary requests pass."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vthreads.serve._http.heads import Head
from vthreads.serve._http.parser import HeadParser
from vthreads.serve._http.refusals import Refusal
from vthreads.serve._http.rules import HEAD_RULES, RAW_RULES, check_head, check_raw


def get(*fields, target=b"/", method=b"GET", version=b"HTTP/1.1", host=b"Host: a"):
    lines = [b"%b %b %b" % (method, target, version), *([host] if host else []), *fields]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def post(*fields, version=b"HTTP/1.1"):
    return get(*fields, method=b"POST", version=version)


# Status, and a request that has the fault. Each row of the tables in `rules` has one at least.
REFUSED = {
    # RFC 9112, 3 and RFC 9110, 15.5.15: a request line has a limit.
    "long request line": (414, get(target=b"/" + b"x" * 9000)),
    # RFC 6585, 5: all fields together, and their number.
    "long fields": (431, get(b"X: " + b"x" * 40_000)),
    "many long fields": (431, get(*[b"X%d: %b" % (number, b"x" * 500) for number in range(90)])),
    "many fields": (431, get(*[b"X%d: x" % number for number in range(100)])),
    # RFC 9110, 5.5: control characters in values. NUL cuts strings off in C code behind the server.
    "NUL": (400, get(b"X: a\0b")),
    "control character": (400, get(b"X: a\x01b")),
    "DEL": (400, get(b"X: a\x7fb")),
    "NUL in the target": (400, get(target=b"/a\0")),
    # RFC 9112, 2.2: a bare CR or LF ends a line for some parsers and for others not.
    "bare CR": (400, get(b"X: a\rY: b")),
    "bare LF": (400, get(b"X: a\nY: b")),
    # RFC 9112, 5.2: obsolete folding hides fields from parsers that do not support it.
    "folded by a space": (400, get(b"X: a\r\n b")),
    "folded by a tab": (400, get(b"X: a\r\n\tContent-Length: 3")),
    # RFC 9112, 2.3: a request line has a version.
    "no version": (400, b"GET /\r\n\r\n"),
    "another protocol": (400, get(version=b"ICE/1.0")),
    "no number": (400, get(version=b"HTTP/a.b")),
    "lower case": (400, get(version=b"http/1.1")),
    "long number": (400, get(version=b"HTTP/1.10")),
    # RFC 9110, 15.6.6.
    "0.9": (505, get(version=b"HTTP/0.9")),
    "1.2": (505, get(version=b"HTTP/1.2")),
    "2.0": (505, get(version=b"HTTP/2.0")),
    "preface of HTTP/2": (505, b"PRI * HTTP/2.0\r\n\r\n"),
    # RFC 9112, 3: parsers that split at each space find another target.
    "two spaces": (400, b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
    "space in the target": (400, get(target=b"/a b")),
    # RFC 9110, 9.1: an unknown method is not implemented.
    "unknown method": (501, get(method=b"BREW")),
    "method in lower case": (501, get(method=b"get")),
    # RFC 9110, 9.3.6: this server is not a proxy.
    "CONNECT": (501, get(method=b"CONNECT", target=b"a:80")),
    # RFC 9112, 3.2: Host.
    "no host": (400, get(host=None)),
    "two hosts": (400, get(b"Host: b")),
    "the same host twice": (400, get(b"Host: a")),
    "two hosts on 1.0": (400, get(b"Host: b", version=b"HTTP/1.0")),
    "empty host": (400, get(host=b"Host:")),
    "host with a path": (400, get(host=b"Host: a/b")),
    "host with a query": (400, get(host=b"Host: a?b")),
    "host with a fragment": (400, get(host=b"Host: a#b")),
    "host with user information": (400, get(host=b"Host: user@a")),
    "host with a space": (400, get(host=b"Host: a b")),
    "list of hosts": (400, get(host=b"Host: a:1:2")),
    "host with a wrong port": (400, get(host=b"Host: a:http")),
    "host outside of ASCII": (400, get(host=b"Host: \xe4")),
    # RFC 9112, 3.2: forms of the target.
    "asterisk without OPTIONS": (400, get(target=b"*")),
    "authority without CONNECT": (400, get(target=b"a:80")),
    "fragment": (400, get(target=b"/a#b")),
    "absolute form of another scheme": (400, get(target=b"ftp://a/")),
    "absolute form without a host": (400, get(target=b"http:///a")),
    "absolute form with user information": (400, get(target=b"http://user@a/")),
    # RFC 9110, 8.6 and RFC 9112, 6.3: Content-Length.
    "two lengths": (400, post(b"Content-Length: 1", b"Content-Length: 2")),
    "the same length twice": (400, post(b"Content-Length: 1", b"Content-Length: 1")),
    "list of lengths": (400, post(b"Content-Length: 1, 1")),
    "length with a sign": (400, post(b"Content-Length: +1")),
    "negative length": (400, post(b"Content-Length: -1")),
    "hexadecimal length": (400, post(b"Content-Length: 0x1")),
    "empty length": (400, post(b"Content-Length:")),
    "length with an underscore": (400, post(b"Content-Length: 1_0")),
    "huge length": (400, post(b"Content-Length: 99999999999999999999")),
    # RFC 9112, 6.1 and 6.3: Transfer-Encoding. CWE-444: request smuggling.
    "length and coding": (400, post(b"Content-Length: 1", b"Transfer-Encoding: chunked")),
    "coding and length": (400, post(b"Transfer-Encoding: chunked", b"Content-Length: 1")),
    "two codings": (400, post(b"Transfer-Encoding: gzip, chunked")),
    "chunked twice": (400, post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked")),
    "chunked not last": (400, post(b"Transfer-Encoding: chunked, identity")),
    "another coding": (400, post(b"Transfer-Encoding: gzip")),
    "identity": (400, post(b"Transfer-Encoding: identity")),
    "empty coding": (400, post(b"Transfer-Encoding:")),
    "coding with a vertical tab": (400, post(b"Transfer-Encoding: \x0bchunked")),
    "coding on 1.0": (400, post(b"Transfer-Encoding: chunked", version=b"HTTP/1.0")),
    # RFC 9110, 10.1.1.
    "another expectation": (417, post(b"Expect: 200-ok")),
    # RFC 9112, 5.1: no space before the colon; a name is a token.
    "space before the colon": (400, get(b"X : a")),
    "empty name": (400, get(b": a")),
    "name that is no token": (400, get(b"X(a): b")),
    "no colon": (400, get(b"X")),
}


def refusal_of(raw):
    with pytest.raises(Refusal) as caught:
        HeadParser().parse(raw)
    return caught.value


@pytest.mark.parametrize("name", REFUSED)
def test_a_faulty_head_is_refused(name):
    status, raw = REFUSED[name]
    assert status == refusal_of(raw).status


# llhttp refuses these itself. The rows stay: a lenient build of it would allow request smuggling (CWE-444).
ALSO_OF_LLHTTP = [
    [(b"content-length", b"1"), (b"content-length", b"1")],
    [(b"content-length", b"+1")],
    [(b"content-length", b"1"), (b"transfer-encoding", b"chunked")],
]


def refusal_of_fields(fields):
    head = Head([(b"host", b"a"), *fields])
    with pytest.raises(Refusal) as caught:
        check_head(head)
    return caught.value


def test_every_row_of_the_tables_has_a_case():
    found = {refusal_of(raw).reason for _, raw in REFUSED.values()}
    found |= {refusal_of_fields(fields).reason for fields in ALSO_OF_LLHTTP}
    assert set() == {rule.fault for rule in (*RAW_RULES, *HEAD_RULES)} - found


# Pieces that matter to the rules, in any order, so that most heads are almost ordinary.
PIECES = st.sampled_from(
    [b"GET", b" ", b"/", b" HTTP/1.1", b" HTTP/1.0", b" HTTP/2.0", b"HTTP/1.1", b"\r\n", b"\r", b"\n", b"\r\n ", b"\t",
     b"Host: a", b"X: y", b"\0", b"\x7f", b"\xe4", b"#", b"*", b"x" * 9000, b"\r\n\r\n"]
)  # fmt: skip


def first_fault(rules, checked):
    return next((rule.fault for rule in rules if rule.finds(checked)), None)


def reason_from(check, checked):
    try:
        check(checked)
    except Refusal as refusal:
        return refusal.reason
    return None


@given(st.lists(PIECES, max_size=8).map(b"".join), st.booleans())
def test_the_shortcut_for_ordinary_heads_agrees_with_the_rules(middle, is_whole):
    raw = middle if is_whole else b"GET / HTTP/1.1\r\n" + middle + b"\r\n\r\n"
    assert first_fault(RAW_RULES, raw) == reason_from(check_raw, raw)


METHODS = ["GET", "CONNECT", "OPTIONS"]
TARGETS = [b"/", b"*", b"/#", b"a:1", b"http://a/", b""]
FIELDS = list(
    itertools.product(
        [b"host", b"content-length", b"transfer-encoding", b"expect", b"connection", b"upgrade", b"x"],
        [b"a", b"1", b"", b"a b", b"chunked", b"100-continue", b"-1", b"a:80", b"1" * 30],
    )
)


@given(
    st.lists(st.sampled_from(FIELDS), max_size=6),
    st.sampled_from(METHODS),
    st.sampled_from(TARGETS),
    st.booleans(),
    st.sampled_from([0, 0, 100]),
)
def test_the_shortcut_for_ordinary_parsed_heads_agrees_with_the_rules(fields, method, target, is_1_1, more):
    head = Head([*fields, *[(b"y", b"")] * more], method, target, is_1_1=is_1_1)
    assert first_fault(HEAD_RULES, head) == reason_from(check_head, head)


def test_the_shortcut_agrees_with_the_rules_for_one_change_of_an_ordinary_head():
    for method, target, is_1_1, field in itertools.product(METHODS, TARGETS, [True, False], FIELDS):
        for fields in [(b"host", b"a")], [(b"host", b"a"), field]:
            head = Head(fields, method, target, is_1_1=is_1_1)
            assert first_fault(HEAD_RULES, head) == reason_from(check_head, head), (method, target, is_1_1, fields)


ACCEPTED = {
    "plain": get(),
    "host with a port": get(host=b"Host: example.org:8000"),
    "IPv4": get(host=b"Host: 127.0.0.1"),
    "IPv6": get(host=b"Host: [::1]:8000"),
    "no host on 1.0": get(host=None, version=b"HTTP/1.0"),
    "OPTIONS *": get(method=b"OPTIONS", target=b"*"),
    "absolute form": get(target=b"http://b.example/path?query"),
    "absolute form without a path": get(target=b"http://b.example?query"),
    "tab in a value": get(b"X: a\tb"),
    "latin-1 in a value": get(b"X: \xe4"),
    "empty value": get(b"X:"),
    "chunked in upper case": post(b"Transfer-Encoding: CHUNKED"),
    "length with zeros": post(b"Content-Length: 007"),
    "expectation in upper case": post(b"Expect: 100-Continue", b"Content-Length: 1"),
    "longest request line": get(target=b"/" + b"x" * 8000),
    "long fields": get(b"X: " + b"x" * 30_000),
    "many fields": get(*[b"X%d: x" % number for number in range(99)]),
    "upgrade": get(b"Connection: Upgrade", b"Upgrade: websocket"),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_an_ordinary_head_passes(name):
    HeadParser().parse(ACCEPTED[name])


def test_a_parser_is_used_for_many_heads():
    parser = HeadParser()
    # After each of these, llhttp expects a body, another protocol, or the end.
    for name, raw in ACCEPTED.items():
        assert parser.parse(raw).method, name
        assert [b"b"] == parser.parse(get(host=b"Host: b")).hosts


@pytest.mark.parametrize("target", [b"/a?u=http://b/c", b"/http://b/c", b"//b://c", b"*"])
def test_only_the_absolute_form_has_an_authority(target):
    # The authority replaces Host, and the path follows it: a query must decide neither.
    method = b"OPTIONS" if target == b"*" else b"GET"
    assert b"" == HeadParser().parse(get(target=target, method=method)).authority


def test_names_with_an_underscore_and_proxy_are_dropped():
    # CGI makes HTTP_X_USER of both X-User and X_User. HTTP_PROXY: CVE-2016-5385.
    head = HeadParser().parse(get(b"X_User: admin", b"X-User: me", b"Proxy: http://evil"))
    assert [(b"host", b"a"), (b"x-user", b"me")] == head.fields
