"""The body that a WSGI application gives: its types and its length."""

from __future__ import annotations

import itertools

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
