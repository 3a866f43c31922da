"""Heads that are known by their bytes are the heads that the parser makes, and no other ones are known."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vthreads.serve._http.heads import Head
from vthreads.serve._http.known_heads import LONGEST_KEPT, MOST_KEPT, MOST_SEEN, KnownHeads
from vthreads.serve._http.parser import HeadParser
from vthreads.serve._http.recent import Recent
from vthreads.serve._http.refusals import Refusal

from .test_rules import ACCEPTED, REFUSED


def contents(head):
    derived = {"of_fields", "of_head", "of_log", "is_kept"}
    return {name: getattr(head, name) for name in Head.__slots__ if name not in derived}


def parsed(raw):
    """The contents of the head, or the status and reason of the refusal."""
    try:
        return contents(HeadParser().parse(raw))
    except Refusal as refusal:
        return refusal.status, refusal.reason


def through(known, raw):
    """The same as a connection finds it."""
    head = known.find(raw)
    if head is not None:
        return contents(head)
    try:
        head = HeadParser().parse(raw)
    except Refusal as refusal:
        return refusal.status, refusal.reason
    known.keep(raw, head)
    return contents(head)


def keep(known, raw):
    """Pass the head to `known` as often as it takes until it is kept."""
    for _ in range(2):
        known.keep(raw, HeadParser().parse(raw))


LINES = [
    b"GET / HTTP/1.1",
    b"GET /a%20b/?c=d HTTP/1.1",
    b"POST /a HTTP/1.1",
    b"HEAD / HTTP/1.1",
    b"OPTIONS * HTTP/1.1",
    b"BREW / HTTP/1.1",
    b"CONNECT a:80 HTTP/1.1",
    b"GET / HTTP/1.0",
    b"GET / HTTP/1.2",
    b"GET /",
    b"GET /a b HTTP/1.1",
    b"GET /a#b HTTP/1.1",
    b"GET /\x01 HTTP/1.1",
    b"GET /\xe4 HTTP/1.1",
    b"GET http://b/ HTTP/1.1",
    b"GET /" + b"x" * 3000 + b" HTTP/1.1",
    b"GET /" + b"x" * 9000 + b" HTTP/1.1",
    b"",
]
FIELDS = [
    b"Host: a",
    b"Host: b:80",
    b"Host: a/b",
    b"Content-Length: 3",
    b"Content-Length: x",
    b"Transfer-Encoding: chunked",
    b"Expect: 100-continue",
    b"Expect: other",
    b"Connection: close",
    b"Connection: upgrade",
    b"Upgrade: websocket",
    b"X-Forwarded-For: 10.0.0.1",
    b"Proxy: evil",
    b"X_User: a",
    b"X: \x01",
    b" folded",
    b"no colon",
]
RAW = st.builds(
    lambda line, fields: b"\r\n".join([line, *fields, b"", b""]),
    st.sampled_from(LINES),
    st.lists(st.sampled_from(FIELDS), max_size=4),
)


@given(st.lists(RAW, min_size=2, max_size=8))
def test_what_is_known_does_not_change_an_outcome(heads):
    known = KnownHeads()
    for raw in heads * 3:
        assert parsed(raw) == through(known, raw)


def test_a_head_after_each_other_one_has_its_own_outcome():
    cases = [*ACCEPTED.values(), *(raw for _, raw in REFUSED.values())]
    known = KnownHeads()
    # Each request line with the fields of each head.
    for raw in cases * 2:
        line = raw.partition(b"\r\n")[0]
        for other in cases:
            mixed = line + b"\r\n" + other.partition(b"\r\n")[2]
            assert parsed(mixed) == through(known, mixed)


def test_fields_are_known_with_another_target():
    known = KnownHeads()
    keep(known, ACCEPTED["plain"])

    head = known.find(ACCEPTED["plain"].replace(b"GET /", b"POST /a?b"))
    assert ("POST", b"/a?b", [(b"host", b"a")]) == (head.method, head.target, head.fields)


def test_fields_that_occur_once_are_not_kept():
    known = KnownHeads()
    raw = ACCEPTED["plain"]
    known.keep(raw, HeadParser().parse(raw))
    assert known.find(raw) is None
    # Another target, the same fields.
    known.keep(raw.replace(b"GET /", b"GET /a"), HeadParser().parse(raw))
    assert known.find(raw) is not None


def test_only_what_is_small_and_needs_no_trust_is_kept():
    known = KnownHeads()
    for extra in b"X: " + b"x" * LONGEST_KEPT, b"X-Request-Id: 1", b"X-Forwarded-For: 10.0.0.1":
        raw = b"GET / HTTP/1.1\r\nHost: a\r\n" + extra + b"\r\n\r\n"
        keep(known, raw)
        assert known.find(raw) is None


def test_clients_cannot_fill_the_memory():
    known = KnownHeads()
    for number in range(10 * MOST_KEPT):
        raw = b"GET / HTTP/1.1\r\nHost: a\r\nX: %d\r\n\r\n" % number
        keep(known, raw)
    assert len(known._whole) <= 2 * MOST_KEPT
    assert len(known._by_fields) <= 2 * MOST_KEPT
    assert len(known._seen) <= 2 * MOST_SEEN


def test_an_entry_that_is_used_stays():
    recent = Recent(3)
    recent.add("used", 1)
    for number in range(100):
        recent.add(number, number)
        assert 1 == recent.get("used")
    assert recent.get(50) is None
