"""The server and h11 find the same requests in a stream of bytes: a difference would allow request smuggling (CWE-444).

Each stream is made of correct and faulty parts of messages. The server may refuse more than h11 does. What it accepts,
h11 must have found at the same place, with the same method, target and body.
"""

from __future__ import annotations

import h11
from hypothesis import given
from hypothesis import strategies as st

from vthreads import serve

from .conftest import run_with, settle

METHODS = [b"GET", b"POST", b"HEAD", b"PUT", b"OPTIONS", b"get", b"G@T", b"GET\t"]
TARGETS = [b"/", b"/a?b=c", b"/%2e/", b"http://b/x", b"*", b"/a b", b"/#", b"/\x7f", b"a:80", b""]
VERSIONS = [b"HTTP/1.1", b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/1.1 ", b"HTTP/01.1", b"http/1.1"]
LENGTHS = [
    b"Content-Length: 3", b"Content-Length: 0", b"Content-Length:3 ", b"Content-Length: 03", b"content-length: 3",
    b"Content-Length: 3, 3", b"Content-Length: +3", b"Content-Length: 3 3", b"Content-Length: 0x3", b"Content-Length:",
    b"Content-Length: -1", b"Content-Length : 3", b"Content_Length: 3", b" Content-Length: 3", b"Content-Length: 3\r",
    b"Content-Length\x00: 3", b"Content-Length: 3\x00",
]  # fmt: skip
CODINGS = [
    b"Transfer-Encoding: chunked", b"transfer-encoding: CHUNKED", b"Transfer-Encoding:\tchunked \t",
    b"Transfer-Encoding: chunked, chunked", b"Transfer-Encoding: xchunked", b"Transfer-Encoding: identity",
    b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: chunked;q=1", b"Transfer-Encoding : chunked",
    b"Transfer-Encoding: ,chunked", b"Transfer-Encoding: \x0bchunked", b"Transfer_Encoding: chunked",
    b"Transfer-Encoding:", b"X: y\rTransfer-Encoding: chunked", b"X: y\nTransfer-Encoding: chunked",
]  # fmt: skip
OTHERS = [
    b"Host: a", b"Host: b", b"Host : a", b"X: y", b"X: \xe4", b"X:", b": y", b"X", b"\tfolded", b"Connection: close",
    b"Connection: keep-alive", b"Connection: Upgrade", b"Upgrade: h2c", b"Expect: 100-continue", b"Proxy: z",
]  # fmt: skip
BODIES = [
    b"", b"abc", b"3\r\nabc\r\n0\r\n\r\n", b"3;x=y\r\nabc\r\n0\r\nX: y\r\n\r\n", b"0003\r\nabc\r\n0\r\n\r\n",
    b"0\r\n\r\n", b"3 \r\nabc\r\n0\r\n\r\n", b"3\nabc\n0\n\n", b"+3\r\nabc\r\n0\r\n\r\n", b"0x3\r\nabc\r\n0\r\n\r\n",
    b"3\r\nabcd\r\n0\r\n\r\n", b"3\r\nabc0\r\n\r\n", b"0\r\nX : y\r\n\r\n", b"3;\n\r\nabc\r\n0\r\n\r\n",
    b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
]  # fmt: skip


def mostly(usual, others):
    """`usual` in most examples: a stream with a fault in each part would be refused for its first one."""
    return st.integers(0, 5).flatmap(lambda number: st.sampled_from(others) if number == 0 else st.just(usual))


CHUNKED = [body for body in BODIES if b"0" in body]

# The fields of the framing, and the body: both mostly of the same kind.
framings = st.one_of(
    st.tuples(st.just([]), mostly(b"", BODIES)),
    st.tuples(st.sampled_from(LENGTHS).map(lambda field: [field]), st.just(b"abc")),
    st.tuples(st.just(CODINGS[:1]), st.sampled_from(CHUNKED)),
    st.tuples(st.sampled_from(CODINGS).map(lambda field: [field]), st.just(CHUNKED[0])),
    st.tuples(st.lists(st.sampled_from(LENGTHS + CODINGS), max_size=2), st.sampled_from(BODIES)),
)
messages = st.builds(
    lambda method, target, version, host, framing, others, end: (
        end.join([b" ".join([method, target, version]), *host, *framing[0], *others]) + end + end + framing[1]
    ),
    mostly(b"POST", METHODS),
    mostly(b"/", TARGETS),
    mostly(b"HTTP/1.1", VERSIONS),
    mostly([b"Host: a"], [[], [b"Host: a", b"Host: a"]]),
    framings,
    mostly([], [[other] for other in OTHERS]),
    mostly(b"\r\n", [b"\n", b"\r"]),
)


def requests_of_h11(data):
    """The requests that h11 finds: method, target, body."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    connection.receive_data(b"")
    found = []
    try:
        while isinstance(request := connection.next_event(), h11.Request):
            body = b""
            while isinstance(event := connection.next_event(), h11.Data):
                body += event.data
            if not isinstance(event, h11.EndOfMessage):
                break
            found.append((request.method, request.target, body))
            if request.http_version == b"1.0":
                # h11 ends the connection; the server keeps it if the client asks for that. The rest begins here.
                return found + requests_of_h11(connection.trailing_data[0])
            # It begins the next cycle only after a response.
            connection.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
            connection.send(h11.EndOfMessage())
            connection.start_next_cycle()
    except (h11.RemoteProtocolError, h11.LocalProtocolError):
        pass
    return found


@given(sent=st.lists(messages, min_size=1, max_size=3), size=st.sampled_from([1, 2, 7, 9999]))
def test_what_the_server_accepts_h11_has_found_at_the_same_place(sent, size):
    def app(environ, start_response):
        body = environ["wsgi.input"].read()
        seen.append((environ["REQUEST_METHOD"].encode(), environ["REQUEST_URI"].encode("latin-1"), body))
        start_response("200 OK", [("Content-Length", "0")])
        return []

    def program(site):
        with site.client() as client:
            try:
                for start in range(0, len(data), size):
                    client.sock.sendall(data[start : start + size])
                    if size < 9999:
                        settle()
                settle()
                client.sock.shutdown(1)
                client.rest()
            except ConnectionError:
                pass

    seen = []
    data = b"".join(sent)
    run_with(lambda ready: serve.wsgi(app, "127.0.0.1", 0, ready=ready), program)
    assert seen == requests_of_h11(data)[: len(seen)]
