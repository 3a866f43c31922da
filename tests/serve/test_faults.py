"""Handlers that end neither with their deadline nor with the server: the log and the metrics name them."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import threading

import pytest

from .test_command import SECONDS, serving
from .test_operation import ask, free_port, value_of
from .test_workers import children_of

pytestmark = [pytest.mark.real, pytest.mark.thorough]

APP = """
    import time

    def app(environ, start_response):
        path = environ["PATH_INFO"]
        while path == "/pin":
            pass
        while path == "/ignore":
            try:
                time.sleep(3600)
            except BaseException:
                pass
        start_response("200 OK", [("Content-Length", "5")])
        return [b"hello"]
"""
COMMAND = "site_of_test:app", "--bind", "127.0.0.1:0", "--access-log", "off", "--request-seconds", "1"


@contextlib.contextmanager
def requesting(port, path):
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as sock:
        sock.sendall(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path)
        yield sock


def metrics_when(admin, reached):
    """The metrics, as soon as `reached(text)`."""
    # Other processes work meanwhile.
    for _ in range(1000):
        text = ask(admin, "/metrics")[1]
        if reached(text):
            return text
        threading.Event().wait(0.1)
    raise AssertionError(text)


def ages_of(text):
    """Seconds since the last heartbeat of each worker, by its process."""
    return {int(pid): float(age) for pid, age in re.findall(r'heartbeat_age_seconds\{worker="(\d+)"\} (.*)', text)}


def line_with(process, part):
    while part not in (line := process.stderr.readline()):
        assert line, "the server has ended"
    return line


def test_a_handler_that_ignores_its_cancellation_is_named_and_stops_the_heartbeat(tmp_path):
    admin = free_port()
    with serving(tmp_path, *COMMAND, "--admin", f"127.0.0.1:{admin}", app=APP) as (process, port):
        with requesting(port, b"/ignore"):
            assert "GET /ignore" in line_with(process, "has not ended")
            text = metrics_when(admin, lambda text: max(ages_of(text).values()) > 3)
            assert 1 == value_of(text, f'vthreads_serve_late_handlers{{worker="{process.pid}"}}')
            # It holds up nothing else.
            assert (200, "hello") == ask(port, "/")


def test_a_handler_that_pins_one_of_several_workers_is_named(tmp_path):
    admin = free_port()
    command = *COMMAND, "--admin", f"127.0.0.1:{admin}", "--workers", "2", "--watchdog", "0"
    with serving(tmp_path, *command, app=APP) as (process, port):
        workers = children_of(process.pid)
        try:
            with requesting(port, b"/pin") as sock:
                assert "GET /pin pins the worker: " in line_with(process, "has not switched for")
                line_with(process, 'site_of_test.py", line')
                # The other worker answers for both.
                text = metrics_when(admin, lambda text: len([age for age in ages_of(text).values() if age > 4]) == 1)
                assert workers == ages_of(text).keys()
                assert 1 == value_of(text, "vthreads_serve_stalls_total")
                assert re.search(
                    r'pinned{worker="\d+",request="GET /pin",place=".*site_of_test.py:\d+ in app"} 1', text
                )
                # The deadline cannot cut it off.
                sock.settimeout(0.1)
                with pytest.raises(TimeoutError):
                    sock.recv(1)
        finally:
            # The one that is pinned ends with its parent, but only after the drain.
            process.kill()
            for worker in workers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGKILL)


def test_a_handler_that_pins_the_only_process_is_named(tmp_path):
    with serving(tmp_path, *COMMAND, app=APP) as (process, port), requesting(port, b"/pin"):
        assert "GET /pin pins the worker: " in line_with(process, "has not switched for")
        line_with(process, 'site_of_test.py", line')


def test_the_watchdog_does_not_kill_a_worker_whose_application_takes_long_to_import(tmp_path):
    # Its heartbeat begins a second after it serves; until then only the time since the start is known.
    admin = free_port()
    app = APP.replace("def app", "time.sleep(5)\n\n    def app", 1)
    command = *COMMAND, "--admin", f"127.0.0.1:{admin}", "--workers", "2", "--watchdog", "4"
    with serving(tmp_path, *command, app=app) as (process, port):
        before = children_of(process.pid)
        text = metrics_when(admin, lambda text: all(age < 2 for age in ages_of(text).values()))
        assert before == ages_of(text).keys() == children_of(process.pid)
        assert (200, "hello") == ask(port, "/")
