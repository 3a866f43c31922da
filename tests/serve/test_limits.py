"""The limits of the HTTP server, each with the answer that it promises, on a virtual clock."""

from __future__ import annotations

import socket
from dataclasses import fields

import pytest

import vthreads
from vthreads import move_on_after, serve, sleep
from vthreads._core.engine.pollers import POLLERS
from vthreads.errors import Cancelled
from vthreads.serve import Limits

from .conftest import await_arrival, run_with, settle

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n"


def hello(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


def reading(environ, start_response):
    body = environ["wsgi.input"].read()
    start_response("200 OK", [])
    return [b"%d" % len(body)]


class Slow:
    """An application whose handler sleeps, in one place of its life; it records how it ended."""

    def __init__(self, where, seconds=3600):
        self.where = where
        self.seconds = seconds
        self.ended = []

    def nap(self, where):
        if where == self.where:
            try:
                sleep(self.seconds)
            except Cancelled as cancelled:
                self.ended.append(("cancelled", vthreads.now(), cancelled.reason))
                raise
            self.ended.append(("slept", vthreads.now()))

    def __call__(self, environ, start_response):
        self.nap("before the head")
        start_response("200 OK", [])
        self.nap("before the body")
        return self

    def __iter__(self):
        self.nap("before the first part")
        yield b"first"
        self.nap("after the first part")
        yield b"second"

    def close(self):
        sleep(1)  # cleanup that blocks, as a driver does
        self.ended.append(("closed", vthreads.now()))


def test_the_options_are_checked():
    with pytest.raises(ValueError, match=r"idle_seconds must be >= 0 .*, got -1"):
        Limits(idle_seconds=-1)


def test_0_means_no_limit(with_app):
    def app(environ, start_response):
        body = environ["wsgi.input"].read()
        sleep(3600)
        start_response("200 OK", [("Content-Length", "4")])
        yield body[:2]
        sleep(3600)
        yield body[2:]

    def program(site):
        with site.client() as client:
            for _ in range(2):
                # Longer than each of the default times; the pieces are slower than the default rate.
                for piece in (b"POST / HTTP/1.1\r\n", b"Host: a\r\nContent-Length: 4\r\n\r\n", b"bo", b"dy"):
                    client.send(piece)
                    sleep(3600)
                assert (200, b"body") == client.answer()[::2]
            # More than the default size; the answer is the request to send it.
            client.send(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1000000000\r\n\r\n")
            return client.read_until(b"\r\n\r\n")

    limits = Limits(**{field.name: 0 for field in fields(Limits)})
    assert with_app(app, program, limits=limits).startswith(b"HTTP/1.1 100 ")


# --- the deadline of a request


def test_a_request_may_be_longer_than_the_rest_of_the_time_of_the_one_before(with_app):
    # The limit is counted anew for each request of a connection, also by a timer that is still set.
    ended = []

    def app(environ, start_response):
        begun = vthreads.now()
        try:
            sleep(float(environ["QUERY_STRING"]))
            return hello(environ, start_response)
        finally:
            ended.append(vthreads.now() - begun)

    def program(site):
        with site.client() as client:
            for seconds in b"50", b"59", b"3600":
                client.send(GET.replace(b"/ ", b"/?%b " % seconds, 1))
                yield client.answer()[0]

    assert [200, 200, 504] == with_app(app, lambda site: list(program(site)))
    assert [50.0, 59.0, 60.0] == ended


def test_a_scope_that_a_handler_leaves_open_does_not_touch_the_next_request(with_app, reported):
    def app(environ, start_response):
        if environ["PATH_INFO"] == "/open":
            vthreads.CancelScope().__enter__()
        return hello(environ, start_response)

    def program(site):
        with site.client() as client:
            client.send(GET.replace(b"/ ", b"/open ", 1))
            first = client.answer()[0]
            assert b"" == client.rest()
        return first, site.ask(LAST)[:12]

    assert (200, b"HTTP/1.1 200") == with_app(app, program)
    assert [vthreads.ScopeMisuse] == [type(failure) for failure in reported]


@pytest.mark.parametrize("where", ["before the head", "before the body", "before the first part"])
def test_a_request_that_takes_too_long_is_cancelled_and_answered_with_504(with_app, where):
    app = Slow(where)
    data, ended = with_app(app, lambda site: (site.ask(GET, LAST), vthreads.now()))
    assert data.startswith(b"HTTP/1.1 504 ")
    assert 1 == data.count(b"HTTP/1.1 ")
    assert ("cancelled", 60.0) == app.ended[0][:2]
    # The application has not returned what could be closed, or its `close` has had its grace.
    assert [] == app.ended[1:] if where != "before the first part" else [("closed", 61.0)] == app.ended[1:]
    assert ended <= 61


def test_the_deadline_ends_with_the_head(with_app):
    app = Slow("after the first part", 100)
    data = with_app(app, lambda site: site.ask(LAST))
    assert data.endswith(b"second\r\n0\r\n\r\n")
    assert [("slept", 100.0), ("closed", 101.0)] == app.ended


def test_a_handler_that_swallows_its_cancellation_is_answered_with_504(with_app):
    def app(environ, start_response):
        try:
            sleep(3600)
        except Cancelled:
            pass
        return hello(environ, start_response)

    assert with_app(app, lambda site: site.ask(LAST)).startswith(b"HTTP/1.1 504 ")


def test_a_request_may_have_no_deadline(with_app):
    app = Slow("before the head", 7200)
    data = with_app(app, lambda site: site.ask(LAST), limits=Limits(request_seconds=0))
    assert data.startswith(b"HTTP/1.1 200 ")


def test_a_handler_may_set_its_deadline(with_app):
    def app(environ, start_response):
        serve.set_deadline(5 if environ["PATH_INFO"] == "/short" else None)
        sleep(3600)
        return hello(environ, start_response)

    def program(site):
        short = site.ask(LAST.replace(b"/ ", b"/short ", 1)), vthreads.now()
        return short, site.ask(LAST)

    (short, ended), long = with_app(app, program)
    assert short.startswith(b"HTTP/1.1 504 ")
    assert 5.0 == ended
    assert long.startswith(b"HTTP/1.1 200 ")


def test_the_deadline_of_one_request_does_not_touch_the_others(with_app):
    def app(environ, start_response):
        sleep(40)
        return hello(environ, start_response)

    def program(site):
        with site.client() as client:
            answers = []
            for _ in range(3):
                client.send(GET)
                answers.append(client.answer()[0])
            return answers

    assert [200, 200, 200] == with_app(app, program)


# --- a client that has gone


@pytest.mark.parametrize("where", ["before the head", "after the first part"])
def test_a_reset_cancels_the_handler_at_once(with_app, where):
    app = Slow(where)

    def program(site):
        client = site.client()
        client.send(GET)
        sleep(5)
        client.reset()
        sleep(0.5)
        return [event[:2] for event in app.ended[:1]]

    assert [("cancelled", 5.0)] == with_app(app, program)


@pytest.mark.parametrize("poller", POLLERS)
@pytest.mark.parametrize("body", [b"", b"the next request"], ids=["", "after more data"])
def test_a_client_that_has_closed_cancels_the_handler_after_a_second(poller, body):
    app = Slow("before the head")

    def program(site):
        with site.client() as client:
            client.send(GET)
            sleep(5)
            client.send(body)
        sleep(10)
        return app.ended[0]

    ended = run_with(lambda ready: serve.wsgi(app, "127.0.0.1", 0, ready=ready), program, poller=poller)
    assert ("cancelled", "the client has gone") == (ended[0], ended[2])
    assert 6.0 <= ended[1] <= 8.0


def test_a_client_that_has_ended_its_side_with_the_request_is_answered_within_a_second(with_app):
    def program(site):
        with site.client() as client:
            client.sock.sendall(GET)
            client.sock.shutdown(socket.SHUT_WR)
            return client.rest()

    quick, slow = Slow("before the head", 0.9), Slow("before the head", 5)
    assert with_app(quick, program).endswith(b"second\r\n0\r\n\r\n")
    assert b"" == with_app(slow, program)
    assert "cancelled" == slow.ended[0][0]


def test_a_client_that_has_ended_its_side_is_always_answered_on_request(with_app):
    def program(site):
        with site.client() as client:
            client.sock.sendall(GET)
            client.sock.shutdown(socket.SHUT_WR)
            return client.rest()

    assert with_app(Slow("before the head", 50), program, half_close=True).endswith(b"second\r\n0\r\n\r\n")


def test_a_handler_may_go_on_without_its_client(with_app):
    app = Slow("before the head", 10)

    def program(site):
        client = site.client()
        client.send(GET)
        client.reset()
        sleep(20)

    with_app(app, program, cancel_when_gone=False)
    assert [("slept", 10.0), ("closed", 11.0)] == app.ended


# --- heads, bodies, writes


@pytest.mark.parametrize("begin", [b"G", b"GET / HTTP/1.1\r\nHost", GET[:-1]])
def test_a_head_that_does_not_arrive_in_time_is_refused(with_app, begin):
    def program(site):
        with site.client() as client:
            sleep(50)  # before the first byte the connection is only idle
            client.send(begin)
            return client.rest(), vthreads.now()

    data, ended = with_app(hello, program)
    assert data.startswith(b"HTTP/1.1 408 ")
    assert 60.0 == ended


def test_the_deadline_of_a_head_is_not_renewed_by_its_bytes(with_app):
    def program(site):
        with site.client() as client:
            with move_on_after(9.5):
                while True:
                    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n" if vthreads.now() == 0 else b"X: y\r\n")
                    sleep(1)
            return client.rest(), vthreads.now()

    data, ended = with_app(hello, program)
    assert data.startswith(b"HTTP/1.1 408 ")
    assert 10.0 == ended


@pytest.mark.parametrize(("app", "status"), [(reading, b"408"), (hello, b"200")], ids=["read", "skipped"])
def test_a_body_that_comes_too_slowly_is_refused(with_app, app, status):
    def program(site):
        with site.client() as client:
            client.send(POST)
            # The waits between its pieces count together.
            with move_on_after(4.5):
                while True:
                    client.send(b"x" * 100)
                    sleep(1)
            return client.rest()[:12], vthreads.now()

    assert (b"HTTP/1.1 " + status, 5.0) == with_app(app, program)


def test_a_silent_body_is_refused_with_408(with_app):
    def program(site):
        with site.client() as client:
            client.send(POST)
            return client.rest(), vthreads.now()

    data, ended = with_app(reading, program)
    assert data.startswith(b"HTTP/1.1 408 ")
    assert 5.0 == ended


def test_a_body_of_sufficient_rate_may_take_long(with_app):
    def program(site):
        with site.client() as client:
            client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 12500\r\n\r\n")
            for _ in range(50):
                client.send(b"x" * 250)
                sleep(1)
            return client.answer()[2]

    assert b"12500" == with_app(reading, program)


def test_a_client_that_reads_nothing_is_reset(with_app):
    def app(environ, start_response):
        start_response("200 OK", [])
        try:
            for _ in range(1000):
                yield bytes(100_000)
        finally:
            ended.append(vthreads.now())

    def program(site):
        with site.client() as client:
            client.send(GET)
            sleep(61)
            with pytest.raises(ConnectionResetError):
                client.rest()

    ended = []
    with_app(app, program)
    assert [60.0] == ended


def test_a_slow_reader_is_not_reset(with_app):
    def app(environ, start_response):
        start_response("200 OK", [])
        return [bytes(5_000_000)]

    def program(site):
        with site.client() as client:
            client.send(LAST)
            data = b""
            while piece := client.read(1 << 18):
                data += piece
                sleep(2)
            return len(data)

    assert with_app(app, program) > 5_000_000


# --- numbers


def test_above_the_limit_requests_are_refused(with_app):
    def app(environ, start_response):
        sleep(10)
        return hello(environ, start_response)

    def program(site):
        clients = [site.client() for _ in range(3)]
        with clients[0], clients[1], clients[2] as third:
            for client in clients:
                client.send(LAST)
            refused = third.rest()
            return refused, [client.answer()[0] for client in clients[:2]], site.ask(LAST)

    refused, served, later = with_app(app, program, limits=Limits(in_flight=2))
    assert refused.startswith(b"HTTP/1.1 503 ")
    assert b"Retry-After: 1\r\n" in refused
    assert [200, 200] == served
    assert later.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("pause", [0, 5], ids=["connections with a thread", "idle connections"])
def test_a_request_that_has_waited_too_long_is_refused(clock, pause):
    # Two requests arrive at once. The handler of the first one computes for 3 s, while the other waits for its turn.
    def app(environ, start_response):
        clock.advance(3)
        return hello(environ, start_response)

    def program(site):
        with site.client() as first, site.client() as second:
            settle()
            sleep(pause)
            first.sock.sendall(LAST)
            second.sock.sendall(LAST)
            await_arrival(site.server, 2)
            return sorted(client.rest()[:12] for client in (first, second))

    answers = run_with(lambda ready: serve.wsgi(app, "127.0.0.1", 0, ready=ready), program, clock=clock)
    assert [b"HTTP/1.1 200", b"HTTP/1.1 503"] == answers


def test_empty_lines_before_a_request(with_app):
    # RFC 9112, 2.2.
    assert with_app(hello, lambda site: site.ask(b"\r\n\r\n" + LAST)).startswith(b"HTTP/1.1 200 ")
    assert with_app(hello, lambda site: site.ask(b"\r\n\r\n\r\n" + LAST)).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "data", [b"x" * 60_000, b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 10_000, b"GET / HTTP/1.1\nHost: a\n"]
)
def test_a_head_that_does_not_end_is_refused_before_its_deadline(with_app, data):
    answer, ended = with_app(hello, lambda site: (site.ask(data), vthreads.now()))
    assert answer[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 414", b"HTTP/1.1 431")
    assert 0.0 == ended


def test_empty_lines_do_not_keep_a_connection_without_requests(with_app):
    def program(site):
        with site.client() as client:
            for _ in range(3):
                client.send(b"\r\n")
                sleep(0.9)
            return client.rest(), vthreads.now()

    data, ended = with_app(hello, program)
    assert data.startswith(b"HTTP/1.1 400")
    assert ended < 5


def test_the_time_of_the_application_between_two_reads_is_not_time_of_the_client(with_app):
    def app(environ, start_response):
        source = environ["wsgi.input"]
        pieces = [source.read(10)]
        sleep(20)
        start_response("200 OK", [])
        return [*pieces, source.read()]

    def program(site):
        with site.client() as client:
            sleep(0.5)
            client.send(b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 20\r\n\r\n", b"a" * 10)
            sleep(1)
            client.send(b"b" * 10)
            return client.rest()

    data = with_app(app, program)
    assert data.startswith(b"HTTP/1.1 200")
    assert data.endswith(b"a" * 10 + b"b" * 10)


def test_a_slow_reader_of_a_file_is_not_reset(with_app, tmp_path):
    # 60 s without progress are the limit, not 60 s for a certain part.
    size = 3_000_000
    path = tmp_path / "file"
    path.write_bytes(bytes(size))

    def app(environ, start_response):
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](path.open("rb"))

    def program(site):
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
            sock.connect(site.address)
            sock.sendall(LAST)
            found = 0
            while piece := sock.recv(10_000):
                found += len(piece)
                if found < 300_000:
                    sleep(5)
            return found, vthreads.now()

    found, ended = with_app(app, program)
    assert found > size
    assert ended > 120


def test_a_reset_while_a_file_is_sent_is_not_a_failure_of_the_application(with_app, tmp_path, caplog):
    path = tmp_path / "file"
    path.write_bytes(bytes(8_000_000))

    def app(environ, start_response):
        start_response("200 OK", [])
        files.append(path.open("rb"))
        return environ["wsgi.file_wrapper"](files[-1])

    def program(site):
        with site.client() as client:
            client.send(LAST)
            client.reset()
            settle()

    files = []
    with_app(app, program, cancel_when_gone=False)
    assert files[0].closed
    assert "failed" not in caplog.text


def test_a_reset_after_the_end_of_one_side_cancels_the_handler(with_app):
    def app(environ, start_response):
        try:
            sleep(50)
        finally:
            ended.append(vthreads.now())

    def program(site):
        with site.client() as client:
            client.send(LAST)
            client.sock.shutdown(socket.SHUT_WR)
            sleep(5.5)
            client.reset()
            sleep(2)
            return list(ended)

    ended = []
    assert [6.0] == with_app(app, program, half_close=True)
