"""The stop of the HTTP server: no request is lost, and every response before the end announces it."""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
import sys

import pytest

import vthreads
from vthreads import ThreadGroup, serve, sleep, stopping
from vthreads.errors import Cancelled
from vthreads.serve import Limits, _server
from vthreads.serve._listeners import SO_ATTACH_FILTER

from .conftest import Client, run_with, settle

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def hello(environ, start_response):
    start_response("200 OK", [("Content-Length", "5")])
    return [b"hello"]


def test_a_request_under_way_is_answered_and_its_connection_ends(with_app):
    def app(environ, start_response):
        sleep(10)
        seen.append(stopping())
        return hello(environ, start_response)

    def program(site):
        with site.client() as client:
            client.send(GET)
            site.server.stop()
            return client.rest()

    seen = []
    assert with_app(app, program).endswith(b"\r\n\r\nhello")
    assert [True] == seen


def test_an_idle_connection_gets_a_last_chance(with_app):
    def program(site):
        with site.client() as silent, site.client() as late:
            for client in (silent, late):
                client.send(GET)
                client.answer()
            sleep(5)
            site.server.stop()
            sleep(1)
            late.send(GET)
            answer = late.answer()
            assert b"" == late.rest()
            assert b"" == silent.rest()
            return answer[1]["connection"], vthreads.now()

    assert ("close", 7.0) == with_app(hello, program)


def test_a_handler_that_does_not_end_is_cancelled_after_the_drain(with_app):
    def app(environ, start_response):
        try:
            sleep(3600)
        except Cancelled:
            ended.append(vthreads.now())
            raise

    def program(site):
        with site.client() as client:
            client.send(GET)
            site.server.stop()
            return client.rest()

    ended = []
    assert b"" == with_app(app, program, drain=30)
    assert [30.0] == ended


def test_a_request_of_an_idle_connection_during_the_last_cleanup_is_not_an_error(with_app):
    def app(environ, start_response):
        if environ["PATH_INFO"] == "/slow":
            try:
                sleep(3600)
            finally:
                idle[0].sock.sendall(GET)
                sleep(1)
        return hello(environ, start_response)

    def program(site):
        with site.client() as client, site.client() as slow:
            idle.append(client)
            client.send(GET)
            client.answer()
            sleep(5)
            slow.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
            site.server.stop()
            assert b"" == slow.rest()
            # It is not answered. A close with an unread request is a reset.
            with contextlib.suppress(ConnectionResetError):
                assert b"" == client.read()
            return vthreads.now()

    idle = []
    assert 7.0 == with_app(app, program, drain=1)


@pytest.mark.parametrize("keep", [True, False], ids=["kept connections", "a connection each"])
@pytest.mark.parametrize("turn", range(5))
def test_no_request_is_lost_by_a_stop_under_load(with_app, keep, turn):
    """Each client sends until its connection ends or is refused: every request that was sent has an answer."""

    def app(environ, start_response):
        sleep(0.01)
        return hello(environ, start_response)

    def ask_often(address, counts):
        client = None
        while True:
            try:
                client = client or Client(address)
            except ConnectionRefusedError:
                return
            client.sock.sendall(GET)
            counts["sent"] += 1
            status, fields, body = client.answer()
            assert (200, b"hello") == (status, body)
            counts["answered"] += 1
            if not keep or fields.get("connection") == "close":
                client.sock.close()
                client = None

    def program(site):
        counts = {"sent": 0, "answered": 0}
        with ThreadGroup() as clients:
            for _ in range(10):
                clients.spawn(ask_often, site.address, counts)
            sleep(0.1 + turn * 0.003)
            site.server.stop()
        return counts

    counts = with_app(app, program)
    assert counts["sent"] == counts["answered"] > 50


def test_the_backlog_is_served(with_app):
    def program(site):
        clients = [Client(site.address) for _ in range(50)]
        for client in clients:
            client.sock.sendall(GET)
        site.server.stop()
        answers = [client.rest() for client in clients]
        for client in clients:
            client.sock.close()
        settle()
        return {answer[-5:] for answer in answers}

    assert {b"hello"} == with_app(hello, program)


def test_the_backlog_keeps_to_the_limit_of_connections(with_app):
    def app(environ, start_response):
        under_way.append(None)
        most.append(len(under_way))
        sleep(1)
        under_way.pop()
        return hello(environ, start_response)

    def program(site):
        clients = [Client(site.address) for _ in range(10)]
        for client in clients:
            client.sock.sendall(GET)
        site.server.stop()
        answers = []
        for client in clients:
            with client:
                answers.append(client.rest()[-5:])
        return answers

    under_way, most = [], []
    assert [b"hello"] * 10 == with_app(app, program, limits=Limits(connections=2))
    assert 2 == max(most)


# A filter that drops all packets without SYN: the acknowledgement that ends a handshake, and the data after it.
DROP_ALL_BUT_SYN = struct.pack("HBBI" * 4, 0x30, 0, 0, 13, 0x45, 1, 0, 2, 0x06, 0, 0, 0, 0x06, 0, 0, 0xFFFFFFFF)


@pytest.mark.thorough
@pytest.mark.real
@pytest.mark.skipif(sys.platform != "linux", reason="a filter of Linux delays the packets")
def test_a_connection_whose_handshake_is_under_way_is_served(with_app, monkeypatch):
    """The client has sent its request, and its packets arrive some time after the stop has begun."""

    def program(site):
        filtered = ctypes.create_string_buffer(DROP_ALL_BUT_SYN)
        option = struct.pack("HP", 4, ctypes.addressof(filtered))
        site.server._listeners[0].setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, option)
        with site.client() as client:
            client.sock.sendall(GET)
            # It replaces the filter. The client repeats its packets after 0.2 s, 0.6 s, 1.4 s and so on.
            site.server.stop()
            return client.rest()

    # Longer, since a busy machine may stop this test for a second.
    monkeypatch.setattr(_server, "HANDSHAKE_ENDS", 4)
    assert with_app(hello, program, is_real=True).endswith(b"hello")


def test_clients_that_go_on_to_connect_do_not_hold_up_the_stop(monkeypatch):
    """At a shared listener, as of another worker: the server accepts what its backlog can hold, then it ends."""

    def program(site):
        # Three clients and one connection at a time: the backlog is never empty, and never so full that the kernel
        # makes a client wait in real time.
        def connect():
            while len(connected) < before + 100:
                with Client(listener.getsockname()) as client:
                    connected.append(client)
                    client.sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                    client.rest()

        connected = []
        before = 20
        with ThreadGroup() as clients:
            for _ in range(3):
                clients.spawn(connect)
            while len(connected) < before:
                vthreads.checkpoint()
            site.server.stop()
            while site.server.addresses:
                sleep(0.1)
            clients.cancel()
        return len(connected) - before

    # While clients connect, no time passes: the pause for late handshakes would not end.
    monkeypatch.setattr(_server, "HANDSHAKE_ENDS", 0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        options = {"bind": [f"fd://{listener.fileno()}"], "backlog": 5, "limits": Limits(connections=1)}
        # Some more are served until the stop has begun.
        assert run_with(lambda ready: serve.wsgi(hello, ready=ready, **options), program) < 50
