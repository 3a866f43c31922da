"""Logs whose reader does not read, or that cannot be written: the server goes on, and ends."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap

import pytest

from vthreads.serve._outputs import MOST_WAITING, non_blocking

from .test_command import SECONDS, fetch, serving
from .test_workers import stop, wait_until

APP = """
    import logging
    import sys

    def app(environ, start_response):
        environ["wsgi.errors"].write("x" * 5000)
        print("y" * 5000)
        logging.getLogger("shop").error("z" * 5000)
        start_response("200 OK", [("Content-Length", "5")])
        return [b"hello"]
"""


@pytest.mark.sampled(1)
@pytest.mark.real
@pytest.mark.parametrize("workers", ["1", "2"])
def test_logs_that_nobody_reads_do_not_stop_the_server(tmp_path, workers):
    command = "site_of_test:app", "--bind", "127.0.0.1:0", "--workers", workers, "--access-log", "json"
    with serving(tmp_path, *command, app=APP, stdout=subprocess.PIPE) as (process, port):
        # More than the pipes and the memory for what waits can hold.
        for _ in range(300):
            assert b"hello" == fetch(port)
        stop(process)


@pytest.fixture(params=["pipe", "socket", "pipe that cannot be opened again"])
def ends(request, monkeypatch):
    """A stream, and a function that reads what has arrived at its other end."""
    if request.param == "socket":
        here, there = socket.socketpair()
        with here, there, open(here.fileno(), "w", closefd=False) as stream:
            there.setblocking(False)
            yield stream, lambda: there.recv(1 << 20)
        return
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    if request.param != "pipe":
        monkeypatch.setattr("vthreads.serve._outputs.nonblocking_duplicate", lambda fd: None)
    try:
        with open(writer, "w") as stream:
            yield stream, lambda: os.read(reader, 1 << 20)
    finally:
        os.close(reader)


def test_what_finds_no_room_waits_in_order_and_the_rest_is_dropped_and_counted(ends):
    stream, read = ends
    with non_blocking(stream) as quick:
        fill_and_empty(quick, read)


def fill_and_empty(quick, read):
    count = 2 * MOST_WAITING // 1000
    for number in range(count):
        quick.write(f"{number:0999}\n")
    dropped = quick.buffer.dropped
    assert dropped > 0
    data = b""
    for _ in range(10 * count):
        try:
            data += read()
        except BlockingIOError:
            break
        quick.flush()
    *lines, last = data.decode().splitlines()
    assert last == f"vthreads: {dropped} writes were dropped here, because nothing has read them"
    assert list(range(count - dropped)) == list(map(int, lines))
    quick.write("again\n")
    assert b"again\n" == read()


def test_a_reader_that_has_gone_is_not_an_error():
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as stream:
        with non_blocking(stream) as quick:
            quick.write("x")
            assert not quick.buffer._waiting


def test_files_and_terminals_stay_as_they_are(tmp_path):
    with open(tmp_path / "log", "w") as file:
        assert non_blocking(file) is file
    assert non_blocking(None) is None


@pytest.mark.real
@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.thorough)])
def test_what_waits_for_a_reader_is_written_when_it_reads(tmp_path, workers):
    app = """
        def app(environ, start_response):
            # More than a pipe holds.
            print("x" * 300_000, flush=True)
            start_response("200 OK", [("Content-Length", "5")])
            return [b"hello"]
    """
    command = "site_of_test:app", "--bind", "127.0.0.1:0", "--workers", workers, "--access-log", "off"
    with serving(tmp_path, *command, app=app, stdout=subprocess.PIPE) as (process, port):
        assert b"hello" == fetch(port)
        assert "x" * 300_000 == process.stdout.readline().rstrip()


OUTPUTS = {
    "full stdout": ">/dev/full",
    "full stderr": "2>/dev/full",
    "both full": ">/dev/full 2>&1",
    "no stdout": ">&-",
    "no stderr": "2>&-",
    "no stream": "<&- >&- 2>&-",
    "closed pipe": "> >(exec true) 2>&1",
}


@pytest.mark.sampled(3)
@pytest.mark.real
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a full disk is simulated by a device of Linux")
@pytest.mark.parametrize("redirection", OUTPUTS.values(), ids=OUTPUTS)
@pytest.mark.parametrize("workers", ["1", "2"])
def test_outputs_that_cannot_be_written_do_not_end_the_server(tmp_path, workers, redirection):
    (tmp_path / "site_of_test.py").write_text(textwrap.dedent(LOGS))
    path = tmp_path / "socket"
    command = f"exec {sys.executable} -m vthreads serve site_of_test:app --bind unix:{path} --workers {workers}"
    shell = ["bash", "-c", f"{command} --access-log json --app-dir {tmp_path} {redirection}"]
    with subprocess.Popen(shell, cwd=tmp_path, env={**os.environ, "VTHREADS_SERVE_UNKNOWN": "1"}) as process:
        try:
            wait_until(lambda: process.poll() is None and is_served(path))
            # What is written to the numbers of the standard streams never goes to a client.
            used = [os.readlink(f"/proc/{process.pid}/fd/{fd}") for fd in range(3)]
            assert not any(name.startswith("socket:") for name in used)
            process.terminate()
            assert 0 == process.wait(SECONDS)
        finally:
            process.kill()


LOGS = """
    import logging

    def app(environ, start_response):
        logging.getLogger("shop").error("a record")
        start_response("200 OK", [("Content-Length", "5")])
        return [b"hello"]
"""


def is_served(path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(SECONDS)
        try:
            sock.connect(str(path))
        except OSError:
            return False
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        with sock.makefile("rb") as file:
            return file.read().endswith(b"hello")
