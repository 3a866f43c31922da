"""HTTP/1.1 over real connections: what a client sends and gets, byte for byte, and that connections stay usable."""

from __future__ import annotations

import _socket
import contextvars
import gc
import re
import socket
import ssl
import sys

import pytest
import trustme

import vthreads
from vthreads import serve, sleep
from vthreads._core.engine.pollers import POLLERS
from vthreads.serve import Limits
from vthreads.serve._addresses import parse_address
from vthreads.serve._http.inputs import Input
from vthreads.serve._sight import Sight
from vthreads.serve._wsgi import WsgiOptions, serve_application

from .conftest import await_arrival, run_with, settle

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
CHUNKED = b"POST /chunked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def hello(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


def echo(environ, start_response):
    """Answer with the path and the body of the request."""
    body = environ["wsgi.input"].read()
    start_response("200 OK", [])
    return [environ["PATH_INFO"].encode("latin-1"), b" ", body]


def streaming(environ, start_response):
    start_response("200 OK", [])
    yield b"one"
    yield b""
    yield b"two"


class Sleeps:
    def __call__(self, environ, start_response):
        sleep(3600)


def request(path, *, method="POST", body=b"", fields=b""):
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    return b"%b %b HTTP/1.1\r\nHost: a\r\n%b%b\r\n%b" % (method.encode(), path, fields, length, body)


def test_a_response_has_its_length_and_a_date_and_no_server(with_app):
    def program(site):
        with site.client() as client:
            client.send(GET)
            return client.answer()

    status, fields, body = with_app(hello, program)
    assert (200, b"hello") == (status, body)
    assert {"content-type", "content-length", "date"} == fields.keys()
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", fields["date"])


def test_a_connection_serves_many_requests_also_after_bodies(with_app):
    def program(site):
        with site.client() as client:
            answers = []
            for number in range(5):
                client.send(request(b"/%d" % number, body=b"x" * number))
                answers.append(client.answer()[2])
            return answers

    assert [b"/0 ", b"/1 x", b"/2 xx", b"/3 xxx", b"/4 xxxx"] == with_app(echo, program)


def test_pipelined_requests_are_answered_in_order(with_app):
    parts = [request(b"/%d" % number, body=b"body" * (number % 3)) for number in range(50)]

    def program(site):
        with site.client() as client:
            client.send(b"".join(parts))
            return [client.answer()[2] for _ in parts]

    assert [b"/%d " % number + b"body" * (number % 3) for number in range(50)] == with_app(echo, program)


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_a_request_may_come_in_pieces_of_any_size(with_app, size):
    chunked = CHUNKED + b"3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n"
    data = request(b"/sized", body=b"body") + chunked + LAST
    pieces = [data[start : start + size] for start in range(0, len(data), size)]

    def program(site):
        with site.client() as client:
            client.send(*pieces)
            return [client.answer()[2] for _ in range(3)]

    assert [b"/sized body", b"/chunked abc0123456789", b"/ "] == with_app(echo, program)


def test_a_response_of_unknown_length_is_chunked_on_1_1(with_app):
    data = with_app(streaming, lambda site: site.ask(LAST))
    head, _, body = data.partition(b"\r\n\r\n")
    assert b"Transfer-Encoding: chunked" in head
    assert b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n" == body


def test_a_response_of_unknown_length_ends_with_the_connection_on_1_0(with_app):
    data = with_app(streaming, lambda site: site.ask(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"))
    head, _, body = data.partition(b"\r\n\r\n")
    assert b"Connection: close" in head
    assert b"Transfer-Encoding" not in head
    assert b"onetwo" == body


def test_1_0_keeps_the_connection_on_request_only(with_app):
    def program(site):
        kept = site.ask(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", b"GET / HTTP/1.0\r\n\r\n")
        return kept, site.ask(b"GET / HTTP/1.0\r\n\r\n")

    kept, single = with_app(hello, program)
    assert (1, 1) == (kept.count(b"Connection: keep-alive"), kept.count(b"Connection: close"))
    assert 1 == single.count(b"hello")


def test_the_parts_of_a_stream_are_sent_when_they_are_made(with_app):
    def app(environ, start_response):
        start_response("200 OK", [])
        yield b"first"
        sleep(10)
        yield b"second"

    def program(site):
        with site.client() as client:
            client.send(LAST)
            client.read_until(b"first\r\n")
            first = vthreads.now()
            client.rest()
            return first, vthreads.now()

    assert (0.0, 10.0) == with_app(app, program)


def test_write_of_start_response_sends_at_once(with_app):
    def app(environ, start_response):
        write = start_response("200 OK", [("Content-Length", "9")])
        write(b"writ")
        sleep(1)
        write(b"t")
        return [b"e", b"n", b"!!"]

    assert with_app(app, lambda site: site.ask(LAST)).endswith(b"\r\n\r\nwritten!!")


# --- HEAD and statuses without body (RFC 9110, 6.4.1 and 9.3.2)


@pytest.mark.parametrize("app", [hello, streaming])
def test_head_has_no_body(with_app, app):
    def program(site):
        with site.client() as client:
            client.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", LAST)
            return client.answer("HEAD"), client.answer()

    (status, fields, body), following = with_app(app, program)
    assert (200, b"") == (status, body)
    assert fields.get("content-length") in ("5", None)
    assert 200 == following[0]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"HEAD / HTTP/1.1\r\n\r\n", 400),
        (b"HEAD  HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"HEAD / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"HEAD /%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"a" * 10_000), 414),
        (b"HEAD / HTTP/1.1\r\nHost: a\r\n", 408),
        (b"HEAD / HTTP/1.1\nHost: a\n\n", 400),
        (b"HEAD /overload HTTP/1.1\r\nHost: a\r\n\r\n", 503),
    ],
)
def test_a_refusal_of_head_has_no_body(with_app, data, status):
    def program(site):
        with site.client() as other:
            if status == 503:
                other.send(GET)
            return site.ask(data)

    answer = with_app(streaming if status != 503 else Sleeps(), program, limits=Limits(in_flight=1))
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert answer.endswith(b"\r\n\r\n")


def test_the_application_knows_whether_there_are_other_processes():
    seen = []

    def app(environ, start_response):
        seen.append(environ["wsgi.multiprocess"])
        return hello(environ, start_response)

    for several in (False, True):
        options = WsgiOptions(limits=Limits(), multiprocess=several)
        where = [parse_address("127.0.0.1:0")]
        run_with(lambda ready: serve_application(app, where, options, ready), lambda site: site.ask(LAST))
    assert [False, True] == seen


def test_a_status_without_a_phrase_keeps_its_space(with_app):
    # RFC 9112, 4.
    def app(environ, start_response):
        start_response("200", [("Content-Length", "0")])
        return []

    assert with_app(app, lambda site: site.ask(LAST)).startswith(b"HTTP/1.1 200 \r\n")


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_statuses_without_a_body(with_app, status):
    def app(environ, start_response):
        start_response(status, [("Content-Length", "5")])
        return [b"hello"]

    data = with_app(app, lambda site: site.ask(GET, LAST))
    assert 2 == data.count(status.encode())
    assert b"hello" not in data
    assert (b"Content-Length" in data) == status.startswith("304")


# --- Expect: 100-continue (RFC 9110, 10.1.1)


def test_continue_is_sent_at_the_first_read_of_the_body(with_app):
    def app(environ, start_response):
        sleep(5)
        return echo(environ, start_response)

    def program(site):
        with site.client() as client:
            client.send(b"POST /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
            interim = client.read_until(b"\r\n\r\n"), vthreads.now()
            client.send(b"body")
            answer = client.answer()
            client.send(LAST)
            return interim, answer[2], client.answer()[2]

    assert ((CONTINUE, 5.0), b"/x body", b"/ ") == with_app(app, program)


def test_without_a_read_of_the_body_the_final_response_comes_and_the_connection_ends(with_app):
    def program(site):
        head = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
        return site.ask(head), vthreads.now()

    data, ended = with_app(hello, program)
    assert data.startswith(b"HTTP/1.1 200 ")
    assert CONTINUE not in data
    # The server waits for no body that it has not asked for.
    assert 0.0 == ended


def test_a_body_that_is_too_large_is_refused_instead_of_continued(with_app):
    data = with_app(
        echo,
        lambda site: site.ask(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"),
        limits=Limits(body_bytes=4),
    )
    assert data.startswith(b"HTTP/1.1 413 ")


# --- bodies


def test_a_body_that_the_application_does_not_read_is_skipped(with_app):
    def program(site):
        with site.client() as client:
            client.send(request(b"/", body=b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"), LAST)
            return client.rest()

    assert 2 == with_app(hello, program).count(b"HTTP/1.1 200")


def test_a_long_body_that_the_application_does_not_read_ends_the_connection(with_app):
    data = with_app(hello, lambda site: site.ask(request(b"/", body=bytes(200_000)), LAST))
    assert 1 == data.count(b"HTTP/1.1 200")


def test_trailers_are_dropped(with_app):
    # RFC 9110, 6.5.1: a trailer merged into the head could replace its fields.
    def app(environ, start_response):
        body = environ["wsgi.input"].read()
        start_response("200 OK", [])
        return [body, b" ", environ.get("HTTP_X", "none").encode()]

    # With the most bytes that trailers may have.
    trailers = b"1\r\nx\r\n0\r\nX: smuggled\r\nHost: b\r\n" + b"X: y\r\n" * 1018 + b"\r\n"
    data = with_app(app, lambda site: site.ask(CHUNKED + trailers + LAST))
    assert 2 == data.count(b"HTTP/1.1 200")
    assert b"x none" in data


@pytest.mark.parametrize(
    ("chunks", "status"),
    [
        (b"g\r\n", 400),
        (b"-1\r\n", 400),
        (b"0x1\r\na\r\n", 400),
        (b" 1\r\na\r\n", 400),
        (b"1\na\n0\n\n", 400),
        (b"1\r\nab\r\n0\r\n\r\n", 400),
        (b"1;" + b"x" * 300 + b"\r\n", 400),
        (b"fffffffffffffffff\r\n", 400),
        (b"0\r\nX: " + b"x" * 5000 + b"\r\n\r\n", 400),
        (b"0\r\n" + b"X: y\r\n" * 1025 + b"\r\n", 400),
        (b"ffffffff\r\n" + bytes(2000), 413),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_wrong_chunk_is_refused(with_app, chunks, status):
    # RFC 9112, 7.1. Parsers that differ about the end of a chunk allow request smuggling.
    data = with_app(
        echo,
        lambda site: site.ask(CHUNKED + chunks + LAST),
        limits=Limits(body_bytes=1000),
    )
    assert data.startswith(b"HTTP/1.1 %d " % status)
    assert 1 == data.count(b"HTTP/1.1 ")


def test_an_application_may_answer_a_broken_body_itself_and_the_connection_ends(with_app):
    def app(environ, start_response):
        try:
            environ["wsgi.input"].read()
        except OSError:
            start_response("400 My Own", [])
            return [b"mine"]

    data = with_app(app, lambda site: site.ask(CHUNKED + b"x\r\n" + LAST))
    assert data.startswith(b"HTTP/1.1 400 My Own")
    assert 1 == data.count(b"HTTP/1.1 ")


@pytest.mark.parametrize("body", [b"5\r\nhello\r\n", b"x\r\n"], ids=["too slow", "wrong"])
def test_a_faulty_body_that_was_not_read_is_not_answered_twice(with_app, body):
    data = with_app(hello, lambda site: site.ask(CHUNKED + body))
    assert 1 == data.count(b"HTTP/1.1 ")
    assert data.endswith(b"hello")


def test_a_request_leaves_no_cyclic_garbage(with_app):
    def program(site):
        with site.client() as client:
            for _ in range(3):
                client.send(GET, request(b"/", body=b"body"))
                client.answer()
                client.answer()
            gc.collect()
            gc.disable()
            try:
                client.send(GET, request(b"/", body=b"body"))
                client.answer()
                client.answer()
                settle()
                gc.set_debug(gc.DEBUG_SAVEALL)
                gc.collect()
                return [garbage for garbage in gc.garbage if type(garbage).__module__.startswith("vthreads.serve")]
            finally:
                gc.set_debug(0)
                gc.garbage.clear()
                gc.enable()

    assert [] == with_app(echo, program)


# --- failures and wrong responses


def test_a_failing_application_is_logged_and_answered_with_500(with_app, caplog):
    def app(environ, start_response):
        raise KeyError("the key")

    data = with_app(app, lambda site: site.ask(GET, LAST))
    assert data.startswith(b"HTTP/1.1 500 ")
    assert 1 == data.count(b"HTTP/1.1 ")
    assert "the key" in caplog.text


def test_a_failure_after_the_head_breaks_the_response_off(with_app):
    def app(environ, start_response):
        start_response("200 OK", [])
        yield b"begin"
        raise KeyError("the key")

    data = with_app(app, lambda site: site.ask(GET, LAST))
    assert data.endswith(b"begin\r\n")
    assert 1 == data.count(b"HTTP/1.1 ")


def close_fails(environ, start_response):
    class Body:
        def __iter__(self):
            return iter([b"begin"])

        def close(self):
            raise KeyError("the key")

    start_response("200 OK", [("Content-Length", "5")])
    return Body()


def write_and_fail(environ, start_response):
    start_response("200 OK", [])(b"begin")
    raise KeyError("the key")


def write_and_exit(environ, start_response):
    start_response("200 OK", [])(b"begin")
    raise SystemExit("the key")


def write_and_close(environ, start_response):
    # It is not an `Exception`, and the server uses generators itself.
    start_response("200 OK", [])(b"begin")
    raise GeneratorExit("the key")


def fail_in_the_upgrade(environ, start_response):
    serve.websocket(environ)
    raise KeyError("the key")


class Recorder(Sight):
    """Keeps the statuses of the requests."""

    def __init__(self):
        super().__init__()
        self.statuses = []

    def ended(self, client, request_id, head, status, seconds, sent):
        self.statuses.append(status)


def statuses_and_failures(app, request):
    """What is recorded when `app` handles `request`."""
    sight = Recorder()
    options = WsgiOptions(limits=Limits(), sight=sight)
    where = [parse_address("127.0.0.1:0")]

    def program(site):
        with site.client() as client:
            client.send(request)
            client.sock.shutdown(socket.SHUT_WR)
            client.rest()

    run_with(lambda ready: serve_application(app, where, options, ready), program)
    return sight.statuses, sight.row.get("failures")


UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


@pytest.mark.parametrize("app", [write_and_fail, write_and_exit, write_and_close, close_fails, fail_in_the_upgrade])
def test_a_failure_after_the_head_is_logged_and_counted(app, caplog):
    """With the status that the client got: 499 would say that the client has gone."""
    request, status = (UPGRADE, 101) if app is fail_in_the_upgrade else (GET, 200)
    assert ([status], 1) == statuses_and_failures(app, request)
    assert 1 == caplog.text.count("the application failed")
    assert "the key" in caplog.text


def one_too_many(environ, start_response):
    start_response("200 OK", [("Content-Length", "4")])
    return [b"hello"]


def one_missing(environ, start_response):
    start_response("200 OK", [("Content-Length", "6")])
    return [b"hello"]


@pytest.mark.parametrize("app", [one_too_many, one_missing])
def test_a_wrong_content_length_is_counted_as_a_failure(app):
    assert ([200], 1) == statuses_and_failures(app, GET)


@pytest.mark.parametrize(("length", "expected"), [("3", b"hel"), ("9", b"hello")])
def test_a_wrong_content_length_ends_the_connection(with_app, length, expected, caplog):
    # RFC 9110, 8.6: the length is exact. RFC 9112, 6.3: the next response would be mixed up with this one.
    def app(environ, start_response):
        start_response("200 OK", [("Content-Length", length)])
        return [b"hel", b"lo"]

    data = with_app(app, lambda site: site.ask(GET, LAST))
    assert expected == data.partition(b"\r\n\r\n")[2]
    assert "is not as long as its Content-Length" in caplog.text


@pytest.mark.parametrize(
    ("status", "fields"),
    [
        ("200 OK\r\nX: y", []),
        ("20 OK", []),
        ("100 Continue", []),
        ("200 OK", [("X\r\n", "y")]),
        ("200 OK", [("X y", "z")]),
        ("200 OK", [("X", "y\r\nSet-Cookie: z")]),
        ("200 OK", [("X", "y\0")]),
        ("200 OK", [("Connection", "keep-alive")]),
        ("200 OK", [("Transfer-Encoding", "chunked")]),
        ("200 OK", [("Content-Length", "-1")]),
        ("200 OK", [("Content-Length", "1"), ("content-length", "2")]),
        ("200 OK", [("X", "\N{SNOWMAN}")]),
    ],
    ids=str,
)
def test_a_response_that_cannot_be_sent_raises_in_the_application(with_app, status, fields):
    # CWE-113: response splitting.
    def app(environ, start_response):
        try:
            start_response(status, fields)(b"body")
        except ValueError as error:
            caught.append(error)
            raise

    caught = []
    data = with_app(app, lambda site: site.ask(LAST))
    assert data.startswith(b"HTTP/1.1 500 ")
    assert 1 == len(caught)


def test_a_body_before_start_response_is_an_error(with_app, caplog):
    assert with_app(lambda environ, start: [b"x"], lambda site: site.ask(LAST)).startswith(b"HTTP/1.1 500 ")
    assert "start_response" in caplog.text


# --- contexts and early hints


def test_context_variables_do_not_leak_between_requests_of_a_connection(with_app):
    variable = contextvars.ContextVar("variable", default="unset")

    def app(environ, start_response):
        start_response("200 OK", [])
        before = variable.get()
        variable.set("leaked")
        sleep(1)
        return [f"{before} {variable.get()}".encode()]

    def program(site):
        with site.client() as client:
            client.send(GET, GET)
            return client.answer()[2], client.answer()[2]

    assert (b"unset leaked", b"unset leaked") == with_app(app, program)


def test_early_hints_come_before_the_response(with_app):
    def app(environ, start_response):
        environ["wsgi.early_hints"]([("Link", "</style.css>; rel=preload")])
        return hello(environ, start_response)

    data = with_app(app, lambda site: site.ask(LAST))
    assert data.startswith(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert b"103" not in with_app(app, lambda site: site.ask(b"GET / HTTP/1.0\r\n\r\n"))


# --- idle connections


def test_an_idle_connection_has_no_thread_and_is_served_again(with_app):
    def program(site):
        with site.client() as client:
            client.send(GET)
            client.answer()
            sleep(0.5)
            with_thread = len(site.server._group)
            sleep(1)
            without = len(site.server._group)
            client.send(GET)
            return with_thread, without, client.answer()[2], len(site.server._connections)

    assert (1, 0, b"hello", 1) == with_app(hello, program)


@pytest.mark.parametrize("poller", POLLERS)
def test_an_idle_connection_is_closed_after_its_time(poller):
    def program(site):
        with site.client() as silent, site.client() as client:
            client.send(GET)
            client.answer()
            silent.rest()
            client.rest()
            return vthreads.now(), len(site.server._connections)

    def start(ready):
        serve.wsgi(hello, "127.0.0.1", 0, ready=ready)

    assert (75.0, 0) == run_with(start, program, poller=poller)


def test_a_request_that_arrives_at_the_end_of_the_idle_time_is_served(with_app):
    """Without a reset (RFC 9112, 9.5: the server should not close while a request is arriving)."""

    class Arrival:
        """A timer that expires just before that of the connection: after the poll, so the request is not reported."""

        def __init__(self, site, client):
            self.site, self.client = site, client

        def _expire(self):
            _socket.socket.sendall(self.client.sock, GET)
            await_arrival(self.site.server)

    def program(site):
        with site.client() as client:
            client.send(GET)
            client.answer()
            sleep(5)
            scheduler = vthreads.current_thread()._scheduler
            scheduler.timers.add(vthreads.now() + 1, Arrival(site, client))
            scheduler.clock.advance(20)
            return client.answer()[2]

    assert b"hello" == with_app(hello, program, limits=Limits(idle_seconds=20))


def test_a_client_that_closes_an_idle_connection_is_noticed(with_app):
    def program(site):
        with site.client() as client:
            client.send(GET)
            client.answer()
            sleep(5)
        settle()
        return len(site.server._connections), vthreads.now()

    assert (0, 5.0) == with_app(hello, program)


def test_many_idle_connections(with_app):
    def program(site):
        clients = [site.client() for _ in range(200)]
        for client in clients:
            client.sock.sendall(GET)
        for client in clients:
            client.answer()
        sleep(10)
        threads = len(site.server._group)
        for client in clients:
            client.sock.sendall(LAST)
        answers = {client.answer()[2] for client in clients}
        for client in clients:
            client.sock.close()
        return threads, answers

    assert (0, {b"hello"}) == with_app(hello, program)


# --- what an attacker or a careless application could reach


def test_a_failed_attempt_does_not_decide_the_framing_of_the_next(with_app):
    def app(environ, start_response):
        write = start_response("200 OK", [])
        try:
            write("text")
        except TypeError:
            start_response("500 Mine", [("Content-Length", "5")], sys.exc_info())
        return [b"hello"]

    def program(site):
        with site.client() as client:
            client.send(request(b"/", method="GET"))
            return client.read_until(b"hello")

    data = with_app(app, program)
    assert data.startswith(b"HTTP/1.1 500 Mine\r\n")
    assert data.endswith(b"\r\n\r\nhello")
    assert b"chunked" not in data


def test_an_exit_in_a_handler_ends_its_request_only(with_app, caplog):
    def app(environ, start_response):
        if environ["PATH_INFO"] == "/exit":
            sys.exit(3)
        return hello(environ, start_response)

    def program(site):
        return [
            site.ask(request(path, method="GET", fields=b"Connection: close\r\n"))[:12] for path in (b"/exit", b"/")
        ]

    assert [b"HTTP/1.1 500", b"HTTP/1.1 200"] == with_app(app, program)
    assert "the application failed in GET /exit" in caplog.text


@pytest.mark.parametrize(
    "chunks",
    [b"5 \r\nhello\r\n0\r\n\r\n", b"5\t\r\nhello\r\n0\r\n\r\n", b"0\r\nGET /x HTTP/1.1\r\n\r\n", b"0\r\nX : a\r\n\r\n"],
    ids=["size and space", "size and tab", "trailer without colon", "trailer with a space"],
)
def test_chunks_that_parsers_read_differently_are_refused(with_app, chunks):
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert with_app(echo, lambda site: site.ask(head + chunks)).startswith(b"HTTP/1.1 400")


def test_small_chunks_are_read_without_a_copy_of_the_rest_for_each():
    body = b"1\r\na\r\n" * 10_000 + b"0\r\n\r\n"
    source = Input()
    source.add(body)
    source.take_line(10)
    # The buffer is the object that was received: nothing was copied to remove a line.
    assert source._data is body


@pytest.mark.parametrize(
    ("request_", "status"),
    [(LAST, b"200"), (b"BREW / HTTP/1.1\r\n\r\n" + b"x" * 200_000, b"501")],
    ids=["last response", "refusal with unread data"],
)
def test_the_end_of_tls_is_sent(with_app, request_, status):
    authority = trustme.CA()
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(tls)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)

    def program(site):
        with socket.create_connection(site.address) as sock:
            with trusting.wrap_socket(sock, server_hostname="localhost", suppress_ragged_eofs=False) as client:
                client.sendall(request_)
                data = b""
                # Without the end of TLS, the last read raises.
                while piece := client.recv(65536):
                    data += piece
                return data

    assert status == with_app(hello, program, tls=tls)[9:12]


def test_an_idle_connection_of_tls_has_no_thread_and_is_served_again(with_app):
    authority = trustme.CA()
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(tls)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)

    def program(site):
        with socket.create_connection(site.address) as sock:
            with trusting.wrap_socket(sock, server_hostname="localhost") as client:
                for _ in range(2):
                    client.sendall(GET)
                    assert client.recv(65536).endswith(b"hello")
                    before = len(site.server._group)
                    sleep(5)
                    assert (1, 0) == (before, len(site.server._group))

    with_app(hello, program, tls=tls)
