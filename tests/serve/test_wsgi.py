"""WSGI (PEP 3333): the validator of the standard library, the environment, files, and Flask."""

from __future__ import annotations

import gzip
import io
import os
import sys
import wsgiref.validate

import flask
import pytest

import vthreads
from vthreads import sleep
from vthreads.serve._http import adapters

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


def body_of(data):
    return data.partition(b"\r\n\r\n")[2]


def environ_of(with_app, request, **options):
    def app(environ, start_response):
        seen.append(dict(environ))
        start_response("204 No Content", [])
        return []

    seen = []
    with_app(app, lambda site: site.ask(request), **options)
    return seen[0]


# --- the validator


POST = b"POST /path HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
REQUESTS = {
    "GET": LAST,
    "HEAD": b"HEAD /path?query HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "POST": POST + b"Content-Length: 9\r\nContent-Type: text/plain\r\n\r\none\ntwo\nx",
    "chunked": POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\none\r\n0\r\n\r\n",
    "1.0": b"GET http://b/path HTTP/1.0\r\n\r\n",
}


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
def test_the_validator_accepts_the_server(with_app, request_):
    def app(environ, start_response):
        source = environ["wsgi.input"]
        lines = [source.readline(), source.read(1), *source.readlines(), source.read(10)]
        environ["wsgi.errors"].flush()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"|".join(lines)]

    data = with_app(wsgiref.validate.validator(app), lambda site: site.ask(request_))
    assert data.startswith(b"HTTP/1.1 200 OK")


def test_the_validator_accepts_file_wrapper_and_close(with_app, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"content")

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return environ["wsgi.file_wrapper"](path.open("rb"), 3)

    assert with_app(wsgiref.validate.validator(app), lambda site: site.ask(LAST)).endswith(b"0\r\n\r\n")


# --- the environment


def test_the_environment(with_app):
    environ = environ_of(
        with_app,
        b"GET /a%20b/%C3%A4?q=%20&r HTTP/1.1\r\nHost: example.org\r\nX-One: 1\r\nX-One: 2\r\n"
        b"Cookie: a=1\r\nCookie: b=2\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n",
    )
    expected = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/a b/\xc3\xa4",
        "QUERY_STRING": "q=%20&r",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": "127.0.0.1",
        "REMOTE_ADDR": "127.0.0.1",
        "CONTENT_TYPE": "text/plain",
        "HTTP_HOST": "example.org",
        "HTTP_X_ONE": "1,2",
        "HTTP_COOKIE": "a=1; b=2",
        "wsgi.url_scheme": "http",
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.input_terminated": True,
        "wsgi.version": (1, 0),
    }
    assert expected == {name: environ[name] for name in expected}
    assert environ["SERVER_PORT"].isdecimal()
    assert environ["REMOTE_PORT"].isdecimal()


def test_the_host_of_an_absolute_target_replaces_the_field(with_app):
    # RFC 9112, 3.2.2.
    environ = environ_of(with_app, b"GET http://b.example:80/path?q HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert ("b.example:80", "/path", "q") == (environ["HTTP_HOST"], environ["PATH_INFO"], environ["QUERY_STRING"])


def test_an_application_below_a_path(with_app):
    request = b"GET /root/page HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    environ = environ_of(with_app, request, root_path="/root/")
    assert ("/root", "/page") == (environ["SCRIPT_NAME"], environ["PATH_INFO"])


# --- the input


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(
    "call",
    [
        lambda source: source.read(-1) + source.read(),
        lambda source: b"".join(iter(lambda: source.read(7), b"")),
        lambda source: b"".join(iter(source.readline, b"")),
        lambda source: b"".join(iter(lambda: source.readline(5), b"")),
        lambda source: b"".join(source.readlines()),
        lambda source: b"".join(source.readlines(8) + source.readlines(-1)),
        lambda source: b"".join(list(source)),
        lambda source: source.read(3) + source.readline() + source.read(0) + source.read(None),
        lambda source: io.BufferedReader(io.BytesIO(source.read(1 << 20))).read(),
    ],
)
def test_every_way_to_read_gives_the_same(with_app, call, chunked):
    def app(environ, start_response):
        found = call(environ["wsgi.input"])
        start_response("200 OK", [])
        return [found, b"" if not environ["wsgi.input"].read() else b"more"]

    body = b"".join(b"line %d\n" % number for number in range(1000)) + b"end"
    head = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
    if chunked:
        pieces = [body[start : start + 100] for start in range(0, len(body), 100)]
        head += b"Transfer-Encoding: chunked\r\n\r\n"
        coded = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    else:
        head += b"Content-Length: %d\r\n\r\n" % len(body)
        coded = body
    parts = [head, *(coded[start : start + 999] for start in range(0, len(coded), 999))]
    assert body == body_of(with_app(app, lambda site: site.ask(*parts)))


# --- close, exc_info, files


def test_close_is_called_after_the_response_and_after_a_failure(with_app, caplog):
    class Body:
        def __init__(self, fails):
            self.fails = fails

        def __iter__(self):
            yield b"part"
            if self.fails:
                raise KeyError("the key")

        def close(self):
            closed.append(self.fails)

    def app(environ, start_response):
        start_response("200 OK", [])
        return Body(environ["PATH_INFO"] == "/fail")

    closed = []
    with_app(app, lambda site: site.ask(GET, LAST.replace(b"/ ", b"/fail ", 1)))
    assert [False, True] == closed


def test_exc_info_replaces_a_head_that_was_not_sent(with_app):
    def app(environ, start_response):
        start_response("200 OK", [])
        try:
            raise KeyError
        except KeyError:
            start_response("500 Mine", [], sys.exc_info())
        return [b"mine"]

    assert with_app(app, lambda site: site.ask(LAST)).startswith(b"HTTP/1.1 500 Mine")


# PEP 3333 wants a list. An iterator must not lose its fields, nor those of later responses with equal ones.
@pytest.mark.parametrize("kind", [iter, tuple, list])
def test_fields_may_be_an_iterator(with_app, kind):
    def app(environ, start_response):
        kind_of_request = kind if environ["PATH_INFO"] == "/first" else list
        start_response("200 OK", kind_of_request([("X-Kind", kind.__name__), ("Content-Length", "2")]))
        return [b"ok"]

    def program(site):
        return [
            site.ask(b"GET %b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % path) for path in (b"/first", b"/")
        ]

    for data in with_app(app, program):
        assert f"X-Kind: {kind.__name__}\r\n".encode() in data


@pytest.mark.parametrize("head", [False, True], ids=["GET", "HEAD"])
@pytest.mark.parametrize(("declared", "expected"), [(None, 1_000_000), ("1000", 1000), ("2000000", 1_000_000)])
def test_a_regular_file_is_sent_from_its_position(with_app, tmp_path, declared, expected, head):
    content = os.urandom(1_000_100)
    path = tmp_path / "file"
    path.write_bytes(content)

    def app(environ, start_response):
        file = path.open("rb")
        file.read(100)
        files.append(file)
        start_response("200 OK", [("Content-Length", declared)] if declared else [])
        return environ["wsgi.file_wrapper"](file)

    def program(site):
        with site.client() as client:
            client.send(LAST.replace(b"GET", b"HEAD") if head else LAST)
            return client.rest()

    files = []
    data = with_app(app, program)
    assert (b"" if head else content[100 : 100 + expected]) == body_of(data)
    assert b"Content-Length: %b" % (declared or "1000000").encode() in data
    assert files[0].closed


def test_another_file_is_read_in_blocks(with_app):
    def app(environ, start_response):
        start_response("200 OK", [("Content-Length", "6")])
        return environ["wsgi.file_wrapper"](io.BytesIO(b"memory"), 4)

    assert b"memory" == body_of(with_app(app, lambda site: site.ask(LAST)))


def test_the_descriptor_of_a_compressed_file_is_not_its_content(with_app, tmp_path):
    path = tmp_path / "file.gz"
    path.write_bytes(gzip.compress(b"content"))

    def app(environ, start_response):
        start_response("200 OK", [("Content-Length", "7")])
        return environ["wsgi.file_wrapper"](gzip.open(path))

    assert b"content" == body_of(with_app(app, lambda site: site.ask(LAST)))


# --- Flask


def test_flask(with_app):
    app = flask.Flask(__name__)

    @app.get("/hello/<name>")
    def hello(name):
        sleep(1)
        return {"hello": name}

    @app.post("/upload")
    def upload():
        return flask.request.files["file"].read() + flask.request.form["text"].encode()

    @app.get("/slow")
    def slow():
        sleep(3600)

    @app.get("/stream")
    def stream():
        return flask.stream_with_context(f"{number}," for number in range(3))

    form = (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\ncontent\r\n'
        b'--x\r\nContent-Disposition: form-data; name="text"\r\n\r\n text\r\n--x--\r\n'
    )

    def program(site):
        with site.client() as client:
            answers = []
            for request in (
                b"GET /hello/you HTTP/1.1\r\nHost: a\r\n\r\n",
                b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=x\r\n"
                b"Content-Length: %d\r\n\r\n%b" % (len(form), form),
                b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n",
                b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n",
            ):
                client.send(request)
                answers.append(client.answer()[::2])
            return answers, vthreads.now()

    answers, ended = with_app(app, program)
    assert [(200, b'{"hello":"you"}\n'), (200, b"content text"), (200, b"0,1,2,")] == answers[:3]
    assert 504 == answers[3][0]
    assert 61.0 == ended


# CWE-770: a client can make up names of fields without end.
def test_made_up_names_of_fields_are_not_all_kept(with_app):
    def app(environ, start_response):
        start_response("200 OK", [])
        return [",".join(sorted(key for key in environ if key.startswith("HTTP_MADE_UP"))).encode()]

    def program(site):
        for first in range(0, 98 * 11, 98):
            names = [f"made-up-{number}" for number in range(first, first + 98)]
            fields = "".join(f"{name}: x\r\n" for name in names).encode()
            answer = site.ask(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + fields[:-2] + b"\r\n\r\n")
            keys = [f"HTTP_{name.upper().replace('-', '_')}" for name in names]
            assert ",".join(sorted(keys)).encode() == body_of(answer)

    with_app(app, program)
    assert len(adapters._keys) <= adapters.MOST_KEYS
