"""The access log: a line for each request, however it ends; one that cannot be written slows nothing."""

from __future__ import annotations

import io
import json
import threading

import pytest

from vthreads import sleep
from vthreads.serve import Limits
from vthreads.serve import _access_log as access_log
from vthreads.serve._access_log import AccessLog, Entry

LAST = b'GET /a%20b?c HTTP/1.1\r\nHost: a\r\nUser-Agent: "x\\\r\nConnection: close\r\n\r\n'
ENTRY = Entry(0.0, "1.1.1.1", "GET", "/", "HTTP/1.1", 200, 5, 0.5, "id", "", 'a"\n')


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


def test_an_entry_cannot_end_its_line():
    for format in access_log.FORMATS.values():
        assert "\n" not in format(ENTRY)


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
    log.add(ENTRY)
    begun.wait(60)
    for _ in range(8):
        log.add(ENTRY)
    may_go_on.set()
    log.close(60)
    assert (3, 6) == (log.dropped, stream.getvalue().count("\n"))


def test_a_stream_that_fails_does_not_end_the_log():
    class Full(io.StringIO):
        def write(self, text):
            raise OSError("no space left")

    log = AccessLog(Full(), "common")
    log.add(ENTRY)
    log.close(60)
    assert 1 == log.dropped
