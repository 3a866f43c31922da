"""Single rules of the server that no other file tests: each with the section that demands it."""

from __future__ import annotations

import inspect
import ssl
from argparse import Namespace
from dataclasses import asdict

import pytest
import trustme

import vthreads
from vthreads import serve, sleep
from vthreads._cli.serve import process
from vthreads._cli.serve.settings import SETTINGS
from vthreads.serve import Limits
from vthreads.serve._http import responses
from vthreads.serve._wsgi import FileWrapper

from .conftest import settle

LAST = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


def echo(environ, start_response):
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [environ["PATH_INFO"].encode(), b" ", body]


# RFC 9110, 7.8: a server may ignore Upgrade. llhttp stops after such a head and hands the rest back.
@pytest.mark.parametrize("protocol", [b"h2c", b"TLS/1.0", b"websocket"])
@pytest.mark.parametrize(
    ("framing", "body"), [(b"Content-Length: 5", b"hello"), (b"Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n")]
)
def test_an_upgrade_that_the_application_ignores_loses_neither_body_nor_next_request(with_app, protocol, framing, body):
    head = b"POST /first HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: %b\r\n%b\r\n\r\n" % (protocol, framing)
    data = with_app(echo, lambda site: site.ask(head + body + LAST))
    assert 2 == data.count(b"HTTP/1.1 200 OK\r\n")
    assert b"/first hello" in data
    assert data.endswith(b"/last ")


# RFC 9110, 9.3.6: after CONNECT, the bytes would be those of a tunnel. None of them is a request.
def test_what_follows_connect_is_not_served(with_app):
    data = with_app(echo, lambda site: site.ask(b"CONNECT b:80 HTTP/1.1\r\nHost: b:80\r\n\r\n" + LAST))
    assert data.startswith(b"HTTP/1.1 501 ")
    assert 1 == data.count(b"HTTP/1.1 ")


# RFC 9112, 9.6: a close with unread data resets the connection, and the client loses the response.
# CWE-444: what follows a request that was refused may be a part of it.
@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", b"505"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n", b"413"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", b"400"),
    ],
)
def test_a_refusal_is_seen_before_the_end_and_nothing_after_it_is_served(with_app, head, status):
    def program(site):
        with site.client() as client:
            client.send(head + LAST * 3000)
            return client.rest()

    data = with_app(echo, program)
    assert data.startswith(b"HTTP/1.1 " + status)
    assert b"\r\nConnection: close\r\n" in data
    assert 1 == data.count(b"HTTP/1.1 ")


# RFC 9110, 6.6.1: Date is the time of the response, by the second.
def test_the_date_is_made_once_a_second(monkeypatch):
    seconds = [100.0, 100.9, 101.0, 101.5]
    made = []

    def formatdate(second, usegmt):
        made.append(second)
        return f"at {second}"

    monkeypatch.setattr(responses, "formatdate", formatdate)
    monkeypatch.setattr("time.time", lambda: seconds.pop(0))
    monkeypatch.setattr(responses, "_date_of", (0, ""), raising=False)
    dates = [responses._date_line() for _ in range(4)]
    assert ["\r\nDate: at 100"] * 2 + ["\r\nDate: at 101"] * 2 == dates
    assert [100, 101] == made


# RFC 9112, 9.3.2: a server may process pipelined requests later. What it reads ahead must be bounded.
def test_pipelined_requests_are_read_ahead_up_to_64_kib(with_app):
    def app(environ, start_response):
        sleep(5)
        return echo(environ, start_response)

    def program(site):
        with site.client() as client:
            client.sock.settimeout(1)
            with pytest.raises(TimeoutError):
                while True:
                    client.sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 10_000)
            settle()
            (connection,) = site.server._connections
            return len(connection.stream.input)

    assert 0 < with_app(app, program) <= 64 << 10


# RFC 8446 sets no time for a handshake; a client that is silent in it holds a connection (CWE-400).
def test_a_silent_client_of_tls_is_closed_after_the_time_for_the_handshake(with_app):
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("localhost").configure_cert(tls)

    def program(site):
        with site.client() as client:
            assert b"" == client.rest()
            return vthreads.now()

    assert 10.0 == with_app(echo, program, tls=tls)


# CWE-770: connections beyond the limit wait in the backlog until one leaves.
def test_a_connection_beyond_the_limit_is_served_when_another_one_leaves(with_app):
    def program(site):
        with site.client() as first, site.client() as second:
            first.send(b"GET /first HTTP/1.1\r\nHost: a\r\n\r\n")
            first.answer()
            second.sock.settimeout(5)
            second.send(LAST)
            with pytest.raises(TimeoutError):
                second.read()
            first.sock.close()
            second.sock.settimeout(None)
            return second.rest()

    assert with_app(echo, program, limits=Limits(connections=1)).endswith(b"/last ")


# RFC 9110, 10.1.1 and 15.2: a client of HTTP/1.0 gets no interim response.
def test_a_client_of_1_0_gets_no_interim_response(with_app):
    def app(environ, start_response):
        environ["wsgi.early_hints"]([("Link", "</a.css>; rel=preload")])
        return echo(environ, start_response)

    head = b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    data = with_app(app, lambda site: site.ask(head + b"hello"))
    assert data.startswith(b"HTTP/1.1 200 ")
    assert data.endswith(b"/ hello")


# RFC 9112, 9.3 and 9.6: the end of a connection is announced.
@pytest.mark.parametrize(
    ("version", "field", "kept"),
    [
        (b"1.1", b"", True),
        (b"1.1", b"Connection: close\r\n", False),
        (b"1.1", b"Connection: x, Close\r\n", False),
        (b"1.0", b"", False),
        (b"1.0", b"Connection: Keep-Alive\r\n", True),
    ],
)
def test_a_connection_is_kept_as_version_and_field_say(with_app, version, field, kept):
    def program(site):
        with site.client() as client:
            client.send(b"GET / HTTP/%b\r\nHost: a\r\n%b\r\n" % (version, field))
            _, fields, _ = client.answer()
            settle()
            client.sock.settimeout(1)
            try:
                is_open = client.read() != b""
            except TimeoutError:
                is_open = True
            return is_open, fields.get("connection")

    expected = "close" if not kept else "keep-alive" if version == b"1.0" else None
    assert (kept, expected) == with_app(echo, program)


def test_the_access_log_is_off_on_a_terminal(monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert process._access_log(Namespace(access_log="auto")) is None


# RFC 9112, 7.1.1: a recipient should limit the length of chunk extensions (CVE-2023-39326).
@pytest.mark.parametrize(("size", "status"), [(256, b"200"), (257, b"400"), (5_000, b"400")])
def test_the_extensions_of_a_chunk_are_limited(with_app, size, status):
    head = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    extension = b";" + b"x" * (size - 1)
    data = with_app(echo, lambda site: site.ask(head + b"5" + extension + b"\r\nhello\r\n0\r\n\r\n"))
    assert data.startswith(b"HTTP/1.1 " + status)
    assert data.endswith(b"hello") == (status == b"200")


def test_the_defaults():
    limits = {
        "header_seconds": 10.0,
        "handshake_seconds": 10.0,
        "idle_seconds": 75.0,
        "body_bytes": 64 << 20,
        "body_rate": 240.0,
        "write_seconds": 60.0,
        "request_seconds": 60.0,
        "gone_seconds": 1.0,
        "in_flight": 1_000,
        "age_seconds": 1.0,
        "connections": 10_000,
    }
    assert limits == asdict(Limits())
    settings = {setting.name: setting.default for setting in SETTINGS}
    assert limits == {name: settings[name] for name in limits}
    others = {"drain": 30.0, "drain_delay": 0.0, "trusted_proxies": [], "half_close": False, "access_log": "auto"}
    assert others == {name: settings[name] for name in others}
    for function, name, value in [
        (serve.tcp, "max_connections", 10_000),
        (serve.tcp, "drain", 30.0),
        (serve.wsgi, "drain", 30.0),
        (serve.wsgi, "trusted_proxies", ()),
        (serve.wsgi, "half_close", False),
    ]:
        assert value == inspect.signature(function).parameters[name].default


# PEP 3333, "Optional Platform-Specific File Handling".
def test_a_regular_file_is_sent_by_the_kernel(with_app, tmp_path, monkeypatch):
    def app(environ, start_response):
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](path.open("rb"))

    path = tmp_path / "file"
    path.write_bytes(b"content")
    # Without it, nothing of the file can come through Python.
    monkeypatch.delattr(FileWrapper, "__iter__")
    assert with_app(app, lambda site: site.ask(LAST)).endswith(b"\r\n\r\ncontent")
