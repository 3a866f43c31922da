"""The body that a WSGI application gives: its types, its length, and files as `wsgi.file_wrapper`."""

from __future__ import annotations

import io
import itertools
import os
from functools import partial
from pathlib import Path

import pytest

import vthreads

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


def body_of(data):
    return data.partition(b"\r\n\r\n")[2]


def returning(make, fields=(), status="200 OK"):
    """An application whose body is the result of `make`."""

    def app(environ, start_response):
        start_response(status, list(fields))
        return make()

    return app


def writing(*parts):
    """An application that calls the function `write`."""

    def app(environ, start_response):
        write = start_response("200 OK", [])
        for part in parts:
            write(part)
        return []

    return app


def wrapping(make, fields=()):
    """An application that returns a file."""

    def app(environ, start_response):
        start_response("200 OK", list(fields))
        return environ["wsgi.file_wrapper"](make())

    return app


# --- types: PEP 3333 allows bytes alone, as wsgiref and gunicorn do

NOT_BYTES = {
    "bytearray": bytearray(b"text"),
    "memoryview": memoryview(b"text"),
    "memoryview of larger items": memoryview(b"texttext").cast("i"),
    "str": "text",
    "empty str": "",
    "int": 7,
    "None": None,
}
WAYS = {
    "a list": lambda part: returning(lambda: [part]),
    "a longer list": lambda part: returning(lambda: [b"text", part]),
    "an iterator": lambda part: returning(lambda: iter([part])),
    "write": writing,
    "a status without a body": lambda part: returning(lambda: [part], status="204 No Content"),
    "a file": lambda part: wrapping(lambda: File([part])),
}


class File:
    """The least that `wsgi.file_wrapper` accepts."""

    def __init__(self, parts):
        self.parts = [*parts, b""]

    def read(self, size):
        return self.parts.pop(0)


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@pytest.mark.parametrize(
    ("way", "part"),
    # What is false is the end of a file.
    [case for case in itertools.product(WAYS, NOT_BYTES) if case[0] != "a file" or NOT_BYTES[case[1]]],
)
def test_a_part_of_a_body_that_is_not_bytes_is_an_error(with_app, caplog, way, part, method):
    data = with_app(WAYS[way](NOT_BYTES[part]), lambda site: site.ask(LAST.replace(b"GET", method)))
    assert data.startswith(b"HTTP/1.1 500 ")
    assert f"a part of the body is {NOT_BYTES[part]!r}; return an iterable of bytes" in caplog.text


class Bytes(bytes):
    pass


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_subclass_of_bytes_is_sent(with_app, way):
    data = with_app(way(Bytes(b"text")), lambda site: site.ask(LAST))
    assert b"200 OK" in data or b"204 No Content" in data
    assert (b"text" in body_of(data)) == (b"200 OK" in data)


@pytest.mark.parametrize(
    ("body", "named"), [(b"text", "a part of the body is 116"), (None, "the application returned None")]
)
def test_a_body_that_is_not_an_iterable_of_bytes_is_an_error(with_app, caplog, body, named):
    assert with_app(returning(lambda: body), lambda site: site.ask(LAST)).startswith(b"HTTP/1.1 500 ")
    assert f"{named}; return an iterable of bytes" in caplog.text


def test_an_empty_part_before_start_response_sends_no_head(with_app):
    # PEP 3333, "Handling the Content-Length Header": the head waits for the first part that is not empty.
    def app(environ, start_response):
        yield b""
        yield Bytes()
        start_response("200 OK", [])
        yield b"text"

    assert b"4\r\ntext\r\n0\r\n\r\n" == body_of(with_app(app, lambda site: site.ask(LAST)))


@pytest.mark.parametrize(
    "field", [("X", 1), ("X", None), (b"X", b"1"), ("X", "1", "2"), ("X",), "X", None, ("Content-Length", 4)], ids=repr
)
def test_a_field_that_is_not_a_pair_of_strings_is_named(with_app, caplog, field):
    # PEP 3333, "The start_response() Callable".
    assert with_app(returning(list, [("A", "b"), field]), lambda site: site.ask(LAST)).startswith(b"HTTP/1.1 500 ")
    assert f"the field {field!r} is not a pair of strings" in caplog.text


# --- bodies without end: PEP 3333, "Handling the Content-Length Header", lets the server stop iterating


class Endless:
    """A body without end, and without a checkpoint."""

    is_closed = False

    def __iter__(self):
        return itertools.repeat(b"part")

    def close(self):
        self.is_closed = True


@pytest.mark.parametrize(
    ("method", "status", "fields"),
    [
        (b"GET", "200 OK", [("Content-Length", "6")]),
        (b"GET", "204 No Content", []),
        (b"GET", "304 Not Modified", []),
        (b"HEAD", "200 OK", []),
        (b"HEAD", "200 OK", [("Content-Length", "6")]),
    ],
)
def test_an_endless_body_ends_with_its_response(with_app, method, status, fields):
    body = Endless()
    data = with_app(returning(lambda: body, fields, status), lambda site: site.ask(LAST.replace(b"GET", method)))
    assert (b"partpa" if method == b"GET" and status == "200 OK" else b"") == body_of(data)
    assert body.is_closed


def write_endlessly(fields):
    def app(environ, start_response):
        write = start_response("200 OK", fields)
        while True:
            write(b"part")

    return app


def test_more_writes_than_the_length_allows_are_an_error(with_app, caplog):
    data = with_app(write_endlessly([("Content-Length", "6")]), lambda site: site.ask(LAST))
    assert b"partpa" == body_of(data)
    assert "the body is longer than its Content-Length" in caplog.text


def test_endless_writes_without_a_body_are_cancelled_when_the_client_has_gone(with_app):
    def app(environ, start_response):
        try:
            write_endlessly([])(environ, start_response)
        finally:
            ended.append(vthreads.now())

    def program(site):
        with site.client() as client:
            client.send(LAST.replace(b"GET", b"HEAD"))
            client.reset()
        while not ended:
            vthreads.checkpoint()

    ended = []
    with_app(app, program)


# --- files


def test_the_content_of_a_file_whose_size_says_nothing_is_sent(with_app):
    # fstat(2) gives the size 0 for files of /proc, and 4096 for those of /sys.
    for path in UNSIZED:
        with open(path, "rb") as file:
            content = file.read()
        data = with_app(wrapping(partial(Path(path).open, "rb")), lambda site: site.ask(LAST))
        assert b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content) == body_of(data)


UNSIZED = [path for path in ("/proc/version", "/sys/kernel/mm/transparent_hugepage/enabled") if os.path.exists(path)]


class Upper(io.FileIO):
    def read(self, size=-1):
        return super().read(size).upper()


class UpperReader(io.BufferedReader):
    def read(self, size=-1):
        return super().read(size).upper()


@pytest.mark.parametrize("kind", [Upper, lambda path: UpperReader(io.FileIO(path))], ids=["raw", "buffered"])
def test_the_read_of_a_class_of_the_program_is_called(with_app, tmp_path, kind):
    path = tmp_path / "file"
    path.write_bytes(b"text")
    data = with_app(wrapping(lambda: kind(path), [("Content-Length", "4")]), lambda site: site.ask(LAST))
    assert b"TEXT" == body_of(data)


def pipe_with(content):
    reader, writer = os.pipe()
    os.write(writer, content)
    os.close(writer)
    return open(reader, "rb")


@pytest.mark.parametrize("buffering", [0, -1])
@pytest.mark.parametrize(("offset", "expected"), [(6, b"6789"), (10, b""), (20, b"")])
def test_a_file_is_sent_from_its_offset(with_app, tmp_path, offset, expected, buffering):
    def opened():
        file = path.open("rb", buffering)
        file.seek(offset)
        return file

    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    data = with_app(wrapping(opened), lambda site: site.ask(LAST))
    assert expected == body_of(data)
    assert f"Content-Length: {len(expected)}\r\n".encode() in data


def test_a_pipe_is_a_file(with_app):
    data = with_app(wrapping(lambda: pipe_with(b"text"), [("Content-Length", "4")]), lambda site: site.ask(LAST))
    assert b"text" == body_of(data)


@pytest.mark.parametrize("content", [b"", b"text"])
def test_a_file_that_cannot_be_read_is_a_failure_of_the_application(with_app, tmp_path, caplog, content):
    def opened():
        file = (tmp_path / "file").open("wb")
        file.write(content)
        file.flush()
        file.seek(0)
        return file

    data = with_app(wrapping(opened), lambda site: site.ask(GET, LAST))
    assert b"" == body_of(data) or data.startswith(b"HTTP/1.1 500 ")
    assert 1 == data.count(b"HTTP/1.1 ")
    assert 1 == caplog.text.count("the application failed in GET /")


def test_a_file_that_becomes_shorter_is_a_failure_of_the_application(with_app, tmp_path, caplog):
    def program(site):
        with site.client() as client:
            client.send(LAST)
            os.truncate(path, 0)
            return client.rest()

    path = tmp_path / "file"
    path.write_bytes(bytes(50_000_000))
    data = with_app(wrapping(lambda: path.open("rb")), program)
    assert len(data) < 50_000_000
    assert "has become shorter while it was sent" in caplog.text


def test_a_closed_file_is_a_failure_of_the_application(with_app, tmp_path, caplog):
    def closed():
        file = path.open("rb")
        file.close()
        return file

    path = tmp_path / "file"
    path.write_bytes(b"text")
    assert with_app(wrapping(closed), lambda site: site.ask(LAST)).startswith(b"HTTP/1.1 500 ")
    assert "closed file" in caplog.text
