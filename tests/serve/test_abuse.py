"""Clients that mean harm or are broken, by the thousand, and ordinary requests meanwhile, on a virtual clock."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter

import pytest

import vthreads
from vthreads import ThreadGroup, serve, sleep
from vthreads.serve import Limits

from .conftest import settle
from .test_websocket import WebClient

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"
MANY = 2_000
# More than the buffers of the kernel hold for a connection.
PIECE, PIECES = bytes(64 << 10), 400


def app(environ, start_response):
    path = environ["PATH_INFO"]
    body = environ["wsgi.input"].read()
    if path == "/slow":
        sleep(5)
    start_response("200 OK", [])
    return itertools.repeat(PIECE, PIECES) if path == "/large" else [b"%d" % len(body)]


def ask_often(site, seconds):
    """Send a request each second, by a connection that is kept and by one for each; return the answers.

    Raises:
        TimeoutError: the time of an answer is not the time of its request: it has waited for others.
    """
    answers = Counter()
    with site.client() as kept:
        for _ in range(seconds):
            with vthreads.fail_after(0.5), site.client() as other:
                kept.sock.sendall(GET)
                other.sock.sendall(LAST)
                answers[kept.answer()[0]] += 1
                answers[other.answer()[0]] += 1
            sleep(1)
    return answers


def drip(site, begin, byte, ends):
    """Send `begin` and then `byte` every second until an answer comes; count its status and time."""
    with site.client() as client:
        client.sock.sendall(begin)
        client.sock.settimeout(1)
        with contextlib.suppress(ConnectionError):
            while True:
                try:
                    answer = client.sock.recv(100)
                    break
                except TimeoutError:
                    client.sock.sendall(byte)
            ends[answer[9:12], vthreads.now()] += 1


def besides(site, seconds, attack, *args, count=MANY):
    """Run `attack(site, *args)` `count` times, and ordinary requests meanwhile; return their answers."""
    with ThreadGroup() as group:
        for _ in range(count):
            group.spawn(attack, site, *args)
        answers = ask_often(site, seconds)
        group.cancel()
    return answers


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("begin", "byte", "end"),
    [
        # Slowloris: RFC 9110, 15.5.9.
        pytest.param(b"GET / HTTP/1.1\r\nX: ", b"x", (b"408", 10.0), marks=pytest.mark.thorough),
        # Slow POST ("R U Dead Yet"). The limit of requests in flight is 1,000: those that wait for their client do not
        # count.
        (POST, b"x", (b"408", 5.0)),
    ],
    ids=["headers", "bodies"],
)
def test_2000_slow_clients_do_not_hold_up_others(with_app, begin, byte, end):
    def program(site):
        ends = Counter()
        return besides(site, 12, drip, begin, byte, ends), ends

    answers, ends = with_app(app, program)
    assert {200: 24} == answers
    assert {end: MANY} == ends


def test_clients_that_never_read_do_not_hold_up_others(with_app):
    # The buffers of the kernel hold a part of the response; then its sender waits, for 60 s at most.
    def never_read(site):
        with site.client() as client:
            client.sock.sendall(LAST.replace(b"/ ", b"/large ", 1))
            sleep(61)
            with pytest.raises(ConnectionResetError):
                client.rest()
            resets.append(vthreads.now())

    resets = []
    answers = with_app(app, lambda site: besides(site, 65, never_read, count=20), limits=Limits(in_flight=10))
    assert {200: 130} == answers
    assert 20 == len(resets)


def test_a_client_that_sends_requests_and_never_reads_is_reset(with_app):
    def flood(site):
        with site.client() as client, pytest.raises(ConnectionError):
            # The server reads no further than 64 KiB ahead, so this blocks until the reset.
            client.sock.sendall(GET.replace(b"/ ", b"/large ", 1) * 200_000)
            ends.append(vthreads.now())
        ends.append(vthreads.now())

    ends = []
    assert {200: 124} == with_app(app, lambda site: besides(site, 62, flood, count=5))
    assert [60.0] * 5 == ends


def test_websockets_do_not_use_up_the_requests_in_flight(with_app):
    def app_with_socket(environ, start_response):
        if environ["PATH_INFO"] != "/socket":
            return app(environ, start_response)
        for _ in serve.websocket(environ):
            pass
        return []

    def program(site):
        with contextlib.ExitStack() as stack:
            for _ in range(20):
                stack.enter_context(WebClient(site.address, "/socket"))
            open_sockets = ask_often(site, 2)
        settle()
        with ThreadGroup() as group:
            # The limit holds as before: ended sockets have left no gap in the count.
            slow = [group.spawn(site.ask, LAST.replace(b"/ ", b"/slow ", 1)) for _ in range(11)]
        return open_sockets, Counter(future.result()[9:12] for future in slow)

    assert ({200: 4}, {b"200": 10, b"503": 1}) == with_app(app_with_socket, program, limits=Limits(in_flight=10))


in_the_response = pytest.param("in the response", marks=pytest.mark.thorough)


@pytest.mark.parametrize("at", ["at once", "after the request", "in the handler", in_the_response])
def test_500_connections_that_reset_at_once(with_app, at, caplog):
    def reset(site):
        client = site.client()
        if at != "at once":
            client.sock.sendall(LAST.replace(b"/ ", b"/large " if at == "in the response" else b"/slow ", 1))
        if at == "in the response":
            client.read(100)
        elif at == "in the handler":
            sleep(1)
        client.reset()

    def program(site):
        answers = besides(site, 3, reset, count=500)
        settle()
        return answers, len(site.server._connections), len(site.server._group)

    answers, connections, threads = with_app(app, program)
    assert {200: 6} == answers
    assert (1, 1) >= (connections, threads)
    assert "Traceback" not in caplog.text


@pytest.mark.thorough
def test_2000_idle_connections_hold_no_thread(with_app):
    def program(site):
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(site.client()) for _ in range(MANY)]
            for client in clients[::2]:
                client.sock.sendall(GET)
            answers = ask_often(site, 3)
            threads = len(site.server._group)
            for client in clients:
                client.sock.sendall(GET)
            return answers, threads, len(site.server._connections), Counter(client.answer()[0] for client in clients)

    answers, threads, connections, later = with_app(app, program)
    assert {200: 6} == answers
    assert threads <= 1
    assert MANY <= connections <= MANY + 1
    assert {200: MANY} == later
