"""The access log: a line for each request, however it ends; one that cannot be written slows nothing."""

from __future__ import annotations

import io
import json
import re
import socket
import threading

import pytest

from vthreads import sleep
from vthreads.serve import Limits, wsgi
from vthreads.serve import _access_log as access_log
from vthreads.serve._access_log import AccessLog
from vthreads.serve._log_lines import FORMATS

from .conftest import run_with

LAST = b'GET /a%20b?c HTTP/1.1\r\nHost: a\r\nUser-Agent: "x\\\r\nConnection: close\r\n\r\n'


def line(format, ended=0.0):
    lines = FORMATS[format]()
    return lines.line(ended, "1.1.1.1", lines.request("GET", "/", "HTTP/1.1", "", 'a"\n'), 200, 5, 0.5, "id")


def hello(environ, start_response):
    start_response("200 OK", [])
    return [b"hello"]


def lines_of(with_app, app, program, format="json", **options):
    stream = io.StringIO()
    with_app(app, program, access_log=stream, access_log_format=format, **options)
    return stream.getvalue().splitlines()


def test_a_line_of_json(with_app):
    (line,) = map(json.loads, lines_of(with_app, hello, lambda site: site.ask(LAST)))
    assert ("127.0.0.1", "GET", "/a%20b?c", "HTTP/1.1", 200, '"x\\') == tuple(
        line[name] for name in ("client", "method", "target", "version", "status", "agent")
    )
    assert line["sent"] > 5
    assert line["request_id"]


def test_a_line_of_the_common_format(with_app):
    (line,) = lines_of(with_app, hello, lambda site: site.ask(LAST), "common")
    assert '"GET /a%20b?c HTTP/1.1" 200 ' in line
    assert '"\\x22x\\x5c"' in line


def fails(environ, start_response):
    raise ValueError("on purpose")


def sleeps(environ, start_response):
    sleep(3600)


@pytest.mark.parametrize(
    ("app", "data", "status"),
    [
        (fails, LAST, 500),
        (sleeps, LAST, 504),
        (hello, b"nonsense\r\n\r\n", 400),
        (hello, b"GET / HTTP/1.1\r\n", 408),
    ],
)
def test_requests_that_the_server_answers_itself_are_logged_once(with_app, app, data, status):
    lines = lines_of(with_app, app, lambda site: site.ask(data))
    assert [status] == [json.loads(line)["status"] for line in lines]


def test_a_client_that_has_gone_is_logged(with_app):
    def program(site):
        with site.client() as client:
            client.send(LAST)
            client.reset()
            sleep(1)

    assert [499] == [json.loads(line)["status"] for line in lines_of(with_app, sleeps, program)]


def test_a_connection_without_a_request_is_not_logged(with_app):
    assert [] == lines_of(with_app, hello, lambda site: site.ask(), limits=Limits(idle_seconds=2))


@pytest.mark.parametrize("format", FORMATS)
def test_a_client_cannot_end_its_line(format):
    assert ["\n"] == re.findall(r"\s*\n", line(format))


@pytest.mark.parametrize(
    ("format", "expected"),
    [
        (
            "json",
            (
                '{"time":"1970-01-01T00:00:00.000Z","client":"1.1.1.1","method":"GET","target":"/","version":"HTTP/1.1",'
                '"status":200,"sent":5,"seconds":0.500000,"request_id":"id","referer":"","agent":"a\\"\\n"}\n'
            ),
        ),
        (
            "common",
            '1.1.1.1 - - [01/Jan/1970:00:00:00 +0000] "GET / HTTP/1.1" 200 5 "-" "a\\x22\\x0a" id 0.500000\n',
        ),
    ],
)
def test_the_whole_line(format, expected):
    assert expected == line(format)


def test_a_client_without_an_address_has_a_field_in_the_common_format(tmp_path):
    """A peer at a Unix socket. Readers of this format count the fields."""

    def program(site):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(site.address)
            sock.sendall(LAST)
            while sock.recv(1000):
                pass

    stream, bind = io.StringIO(), [f"unix:{tmp_path}/socket"]
    run_with(lambda ready: wsgi(hello, bind=bind, access_log=stream, access_log_format="common", ready=ready), program)
    assert stream.getvalue().startswith("- - - [")


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.0, 0.0), (4.9e-7, 0.0), (0.0123456, 0.012346), (61.000001, 61.000001)]
)
def test_the_seconds_of_a_line(seconds, expected):
    lines = FORMATS["json"]()
    request = lines.request("GET", "/", "HTTP/1.1", "", "")
    assert expected == json.loads(lines.line(0.0, "a", request, 200, 5, seconds, "id"))["seconds"]


def test_each_line_has_its_time():
    lines = FORMATS["json"]()
    request = lines.request("GET", "/", "HTTP/1.1", "", "")
    times = [
        json.loads(lines.line(ended, "a", request, 200, 5, 0.5, "id"))["time"]
        for ended in (0.25, 0.9996, 1.0, 86400.001)
    ]
    assert ["1970-01-01T00:00:00.250Z", "1970-01-01T00:00:00.999Z"] == times[:2]
    assert ["1970-01-01T00:00:01.000Z", "1970-01-02T00:00:00.001Z"] == times[2:]


@pytest.mark.parametrize("format", FORMATS)
def test_the_same_head_with_other_answers_has_other_lines(with_app, format):
    def app(environ, start_response):
        codes.append(f"{201 + len(codes)} Fine")
        start_response(codes[-1], [("Content-Length", "0")])
        return []

    codes = []

    def program(site):
        for agent in (b"one", b"one", b"two"):
            site.ask(b"GET /a HTTP/1.1\r\nHost: a\r\nUser-Agent: %b\r\nConnection: close\r\n\r\n" % agent)
        # Known fields, another target.
        site.ask(b"GET /b HTTP/1.1\r\nHost: a\r\nUser-Agent: two\r\nConnection: close\r\n\r\n")

    lines = lines_of(with_app, app, program, format)
    expected = [("/a", "201", "one"), ("/a", "202", "one"), ("/a", "203", "two"), ("/b", "204", "two")]
    for parts, found in zip(expected, lines, strict=True):
        assert all(part in found for part in parts), (parts, found)


def test_a_log_that_is_not_read_drops_lines_and_counts_them(monkeypatch):
    class Blocked(io.StringIO):
        def write(self, text):
            begun.set()
            may_go_on.wait(60)
            return super().write(text)

    monkeypatch.setattr(access_log, "MOST_WAITING", 5)
    begun, may_go_on = threading.Event(), threading.Event()
    stream = Blocked()
    log = AccessLog(stream, "json")
    log.add(line("json"))
    begun.wait(60)
    for _ in range(8):
        log.add(line("json"))
    may_go_on.set()
    log.close(60)
    assert (3, 6) == (log.dropped, stream.getvalue().count("\n"))


def test_a_stream_that_fails_does_not_end_the_log():
    class Full(io.StringIO):
        def write(self, text):
            raise OSError("no space left")

    log = AccessLog(Full(), "common")
    log.add(line("common"))
    log.close(60)
    assert 1 == log.dropped
