"""h11 as an independent client: what it sends arrives, what the server sends it accepts, in pieces of every size."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vthreads import serve

from .conftest import run_with, settle

TOKEN = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=8)
VALUE = st.text([chr(code) for code in (*range(0x21, 0x7F), 0xE4)], max_size=20)
PATH = st.text([chr(code) for code in range(0x21, 0x7F) if chr(code) not in "?#"], max_size=20)

requests = st.fixed_dictionaries(
    {
        "method": st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"]),
        "path": PATH,
        "fields": st.lists(st.tuples(TOKEN.map(lambda name: f"x-{name}"), VALUE), max_size=5),
        "body": st.none() | st.lists(st.binary(max_size=300), max_size=4),
        "chunked": st.booleans(),
    }
)
responses = st.fixed_dictionaries(
    {
        "status": st.sampled_from(
            ["200 OK", "201 Created", "204 No Content", "304 Not Modified", "404 Nope", "500 Oh"]
        ),
        "fields": st.lists(st.tuples(TOKEN.map(lambda name: f"x-{name}"), VALUE), max_size=5),
        "body": st.lists(st.binary(max_size=300), max_size=4),
        "kind": st.sampled_from([list, tuple, iter]),
        "with_length": st.booleans(),
    }
)


def serialized(connection, request):
    body = request["body"]
    fields = [("Host", "a"), *request["fields"]]
    if body is not None:
        joined = b"".join(body)
        fields.append(("Transfer-Encoding", "chunked") if request["chunked"] else ("Content-Length", str(len(joined))))
    event = h11.Request(
        method=request["method"],
        target="/" + request["path"],
        headers=[(name, value.encode("latin-1")) for name, value in fields],
    )
    data = connection.send(event)
    for part in body or ():
        data += connection.send(h11.Data(data=part))
    return data + connection.send(h11.EndOfMessage())


def answer(connection, sock):
    parts = []
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(sock.recv(1 << 16))
        elif isinstance(event, h11.Response):
            response = event
        elif isinstance(event, h11.Data):
            parts.append(bytes(event.data))
        elif isinstance(event, h11.EndOfMessage):
            return response, b"".join(parts)


@pytest.mark.thorough
@given(
    exchanges=st.lists(st.tuples(requests, responses), min_size=1, max_size=4), size=st.sampled_from([1, 3, 50, 9999])
)
def test_what_h11_sends_arrives_and_what_it_gets_it_accepts(exchanges, size):
    def app(environ, start_response):
        seen.append(environ | {"body": environ["wsgi.input"].read()})
        wanted = exchanges[len(seen) - 1][1]
        fields = list(wanted["fields"])
        if wanted["with_length"]:
            fields.append(("Content-Length", str(len(b"".join(wanted["body"])))))
        start_response(wanted["status"], fields)
        return wanted["kind"](wanted["body"])

    def program(site):
        connection = h11.Connection(h11.CLIENT)
        with site.client() as client:
            for request, wanted in exchanges:
                data = serialized(connection, request)
                for start in range(0, len(data), size):
                    client.sock.sendall(data[start : start + size])
                    if size < 50:
                        settle()
                response, body = answer(connection, client.sock)
                code = int(wanted["status"][:3])
                assert code == response.status_code
                is_empty = request["method"] == "HEAD" or code in (204, 304)
                assert (b"" if is_empty else b"".join(wanted["body"])) == body
                found = [(name.decode(), value.decode("latin-1")) for name, value in response.headers]
                assert wanted["fields"] == [field for field in found if field[0].startswith("x-")]
                connection.start_next_cycle()

    seen = []
    run_with(lambda ready: serve.wsgi(app, "127.0.0.1", 0, ready=ready), program)
    assert len(exchanges) == len(seen)
    for (request, _), environ in zip(exchanges, seen, strict=True):
        assert request["method"] == environ["REQUEST_METHOD"]
        assert "/" + request["path"] == environ["REQUEST_URI"]
        assert b"".join(request["body"] or ()) == environ["body"]
        for name, _ in request["fields"]:
            values = [value for other, value in request["fields"] if other == name]
            assert ",".join(values) == environ["HTTP_" + name.upper().replace("-", "_")]


pieces = st.lists(
    st.binary(max_size=20)
    | st.sampled_from(
        [
            b"GET / HTTP/1.1\r\n", b"POST /x HTTP/1.1\r\n", b"HTTP/1.1", b" ", b"\r\n", b"\n", b"\r", b"Host: a\r\n",
            b"Content-Length: 3\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n",
            b"Connection: close\r\n", b"Expect: 100-continue\r\n", b"3\r\nabc\r\n", b"0\r\n\r\n", b"abc",
            b": ", b"\0", b"Upgrade: h2c\r\n",
        ]
    ),
    max_size=12,
)  # fmt: skip


@given(sent=pieces, size=st.sampled_from([1, 5, 9999]))
def test_whatever_is_sent_only_whole_responses_come_back_and_the_connection_ends(sent, size):
    def app(environ, start_response):
        body = environ["wsgi.input"].read()
        start_response("200 OK", [])
        return [body]

    def program(site):
        data = b"".join(sent)
        with site.client() as client:
            try:
                for start in range(0, len(data), size):
                    client.send(data[start : start + size])
            except ConnectionError:
                pass
            received = client.rest()
        assert site.ask(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").startswith(b"HTTP/1.1 200 ")
        return received

    received = run_with(lambda ready: serve.wsgi(app, "127.0.0.1", 0, ready=ready), program)
    while received:
        connection = h11.Connection(h11.CLIENT)
        connection.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
        connection.send(h11.EndOfMessage())
        connection.receive_data(received)
        connection.receive_data(b"")
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            assert isinstance(event, (h11.InformationalResponse, h11.Response, h11.Data)), event
        received = connection.trailing_data[0]
