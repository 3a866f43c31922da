"""The operation of workers: admin port, recycling, the watchdog, reload at a change; no request is lost meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from argparse import ArgumentParser, Namespace

import pytest

from vthreads import sleep
from vthreads._cli.serve.process import Process
from vthreads.serve import Limits
from vthreads.serve._addresses import parse_address
from vthreads.serve._admin import metrics_text
from vthreads.serve._board import REASONS, Board
from vthreads.serve._sight import Sight
from vthreads.serve._wsgi import WsgiOptions, serve_application

from .conftest import run_with
from .test_command import APP, SECONDS, Load, serving
from .test_workers import children_of, stop, wait_until

PIN = """
    def app(environ, start_response):
        path = environ["PATH_INFO"]
        while path == "/pin":
            pass
        start_response("200 OK", [("Content-Length", "5")])
        return [b"hello"]
"""


# The admin port opens late: at its address in the only process, at the inherited descriptor in a worker.
LATE = """
    import os, socket, time

    def late(call):
        def called(*args, **options):
            time.sleep(0.2)
            return call(*args, **options)

        return called

    socket.create_server, os.dup = late(socket.create_server), late(os.dup)

    def app(environ, start_response):
        start_response("200 OK", [("Content-Length", "5")])
        return [b"hello"]
"""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def ask(port, path, method="GET"):
    """Status and text of an answer."""
    try:
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def value_of(text, name):
    (value,) = (line.split()[-1] for line in text.splitlines() if line.startswith(f"{name} "))
    return float(value)


def test_metrics_are_prometheus_text_and_a_counter_outlives_its_worker():
    board = Board(2)
    row = board.free_row()
    row.begin(17, time.monotonic())
    row.answered(200, 0.002, 100)
    row.set("connections", 3)
    row.refused("age")
    text = metrics_text(board)
    assert 'vthreads_serve_connections{worker="17"} 3' in text
    row.pinned_by = 'GET /"\na.py:3 in é' + "é" * 600
    assert 'vthreads_serve_pinned{worker="17",request="GET /\\"",place="a.py:3 in é' in metrics_text(board)
    row.pinned_by = ""
    assert "vthreads_serve_pinned{" not in metrics_text(board)
    row.pinned_by = "x"
    row.clear()
    text = metrics_text(board)
    assert 'worker="17"' not in text
    assert "" == row.pinned_by
    assert 1 == value_of(text, 'vthreads_serve_responses_total{class="2xx"}')
    assert 1 == value_of(text, 'vthreads_serve_refused_total{reason="age"}')
    assert 0 == value_of(text, 'vthreads_serve_request_seconds_bucket{le="0.001"}')
    assert 1 == value_of(text, 'vthreads_serve_request_seconds_bucket{le="0.0025"}')
    assert 1 == value_of(text, "vthreads_serve_request_seconds_count")
    for line in text.splitlines():
        assert line.startswith("# ") or float(line.rpartition(" ")[2]) >= 0
    assert row is board.free_row()


# What is counted as a request that the server has refused or cancelled: sent bytes, status, reason.
HEAD = b"Host: a\r\nConnection: close\r\n"
COUNTED = [
    (b"GET / HTTP/1.1\r\n\r\n", 400, "malformed"),
    (b"GET / HTTP/2.0\r\n" + HEAD + b"\r\n", 505, "malformed"),
    (b"POST / HTTP/1.1\r\nContent-Length: 101\r\n" + HEAD + b"\r\n", 413, "too_large"),
    (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n" + HEAD + b"\r\n", 414, "too_large"),
    (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 101 + HEAD + b"\r\n", 431, "too_large"),
    (b"GET / HTTP/1.1\r\n", 408, "too_slow"),
    (b"GET /sleep HTTP/1.1\r\n" + HEAD + b"\r\n", 504, "deadline"),
    *[(b"GET /%d HTTP/1.1\r\n" % status + HEAD + b"\r\n", status, None) for status in (200, 304, 404, 599, 600, 999)],
]


@pytest.mark.parametrize(("data", "status", "reason"), COUNTED, ids=[f"{each[1]}" for each in COUNTED])
def test_each_response_is_counted_in_its_class_and_each_refusal_by_its_reason(data, status, reason):
    def app(environ, start_response):
        name = environ["PATH_INFO"][1:]
        if name == "sleep":
            sleep(3600)
        environ["wsgi.input"].read()
        start_response(f"{name} Status", [("Content-Length", "0")])
        return []

    board = Board(1)
    board.rows[0].begin(17, 0.0)
    options = WsgiOptions(limits=Limits(body_bytes=100), sight=Sight(board.rows[0]))
    where = [parse_address("127.0.0.1:0")]
    answer = run_with(lambda ready: serve_application(app, where, options, ready), lambda site: site.ask(data))
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    text = metrics_text(board)
    classes = [value_of(text, f'vthreads_serve_responses_total{{class="{number}xx"}}') for number in range(1, 6)]
    # RFC 9110, 15: a client handles a status beyond 599 like one of 5xx.
    assert [number == min(status // 100, 5) for number in range(1, 6)] == classes
    counted = {each: value_of(text, f'vthreads_serve_refused_total{{reason="{each}"}}') for each in REASONS}
    assert {each: each == reason for each in REASONS} == counted


def test_more_workers_than_rows_is_an_error():
    board = Board(1)
    board.free_row().begin(1, 0.0)
    with pytest.raises(RuntimeError, match="all 1 rows are in use"):
        board.free_row()


def kill(process):
    for pid in [*children_of(process.pid), process.pid]:
        os.kill(pid, signal.SIGKILL)


@pytest.mark.sampled(1)
@pytest.mark.real
@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_command_serves_at_the_admin_port_when_it_reports_that_it_serves(tmp_path, workers):
    admin = free_port()
    command = "site_of_test:app", "--bind", "127.0.0.1:0", "--workers", workers, "--admin", f"127.0.0.1:{admin}"
    with serving(tmp_path, *command, app=LATE) as (process, port):
        assert (200, "ready\n") == ask(admin, "/ready")
        stop(process)


@pytest.mark.real
@pytest.mark.thorough
@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_admin_port_is_not_ready_while_the_server_drains(tmp_path, workers):
    admin = free_port()
    command = "site_of_test:app", "--bind", "127.0.0.1:0", "--workers", workers, "--admin", f"127.0.0.1:{admin}"
    # Longer than the test takes on the slowest machine, so kill the server at the end.
    with serving(tmp_path, *command, "--drain-delay", "600") as (process, port):
        assert (200, "hello") == ask(port, "/")
        assert (200, "ready\n") == ask(admin, "/ready")
        assert (200, "live\n") == ask(admin, "/live")
        assert 404 == ask(admin, "/")[0]
        assert (405, "only GET, HEAD\n") == ask(admin, "/live", "POST")
        assert (200, "") == ask(admin, "/ready", "HEAD")
        assert "carrier" in ask(admin, "/dump")[1]
        # The worker that has answered may count a moment later than the other one reports.
        wait_until(lambda: value_of(ask(admin, "/metrics")[1], 'vthreads_serve_responses_total{class="2xx"}') == 1)
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: ask(admin, "/ready") == (503, "not ready\n"))
        # It still accepts, until the load balancer has noticed.
        assert (200, "hello") == ask(port, "/")
        assert (200, "live\n") == ask(admin, "/live")
        kill(process)


@pytest.mark.real
@pytest.mark.thorough
@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_server_ends_after_the_delay(tmp_path, workers):
    command = "site_of_test:app", "--bind", "127.0.0.1:0", "--workers", workers, "--drain-delay", "1"
    with serving(tmp_path, *command) as (process, _):
        stop(process)


@pytest.mark.real
@pytest.mark.thorough
def test_the_delay_of_each_run_queue_is_shown_until_the_next_beat(tmp_path):
    def all_have_a_delay():
        text = ask(port, "/metrics")[1]
        name = "vthreads_serve_run_queue_delay_seconds"
        # No timer is exactly in time.
        return all(value_of(text, f'{name}{{worker="{pid}"}}') > 0 for pid in workers)

    port = free_port()
    command = "site_of_test:app", "--bind", "127.0.0.1:0", "--workers", "2", "--admin", f"127.0.0.1:{port}"
    with serving(tmp_path, *command) as (process, _):
        workers = children_of(process.pid)
        wait_until(all_have_a_delay)
        stop(process)


@pytest.mark.real
@pytest.mark.thorough
def test_a_pinned_worker_is_killed_with_its_stacks_and_replaced(tmp_path):
    command = "site_of_test:app", "--bind", "127.0.0.1:0", "--workers", "2", "--watchdog", "3"
    with serving(tmp_path, *command, app=PIN) as (process, port):
        before = children_of(process.pid)
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.sendall(b"GET /pin HTTP/1.1\r\nHost: a\r\n\r\n")
            sock.settimeout(SECONDS)
            with contextlib.suppress(ConnectionResetError):
                assert b"" == sock.recv(100)
        wait_until(lambda: len(now := children_of(process.pid)) == 2 and now != before)
        assert (200, "hello") == ask(port, "/")
        stop(process)
        text = process.stderr.read()
    assert "had no heartbeat for 3 s" in text
    assert "Fatal Python error: Aborted" in text
    assert 'site_of_test.py", line ' in text


def test_workers_that_began_together_are_not_recycled_together():
    process = Process(ArgumentParser(), Namespace(max_requests=1000, max_rss=0), Board(1), None, print)
    process._sight = Sight()
    limits = {process._heart_of(None)._max_requests for _ in range(200)}
    assert 1000 <= min(limits) < max(limits) <= 1100


@pytest.mark.real
@pytest.mark.thorough
def test_recycling_under_load_loses_no_request(tmp_path):
    def stop_at(count):
        if count >= 3000 and not stopped and not before & children_of(process.pid):
            stopped.append(count)
            process.send_signal(signal.SIGTERM)
        elif count >= 3000:
            time.sleep(0.01)  # the workers are asked once a second whether they are due

    stopped = []
    command = "site_of_test:app", "--bind", "127.0.0.1:0", "--workers", "2", "--max-requests", "300"
    with serving(tmp_path, *command, "--access-log", "off") as (process, port):
        before = children_of(process.pid)
        load = Load(port, stop_at)
        load.run(8)
        assert 0 == process.wait(SECONDS)
    assert [] == load.lost
    assert load.sent == load.answered >= 3000
    assert stopped


@pytest.mark.real
@pytest.mark.thorough
def test_a_worker_above_its_memory_is_replaced(tmp_path):
    command = "site_of_test:app", "--bind", "127.0.0.1:0", "--max-rss", "1"
    with serving(tmp_path, *command) as (process, port):
        before = children_of(process.pid)
        wait_until(lambda: not before & children_of(process.pid))
        assert (200, "hello") == ask(port, "/")
        stop(process)


GROW = """
    kept = []

    def app(environ, start_response):
        if environ["PATH_INFO"] == "/grow":
            kept.append(b"x" * (256 << 20))
        start_response("200 OK", [("Content-Length", "5")])
        return [b"hello"]
"""


@pytest.mark.real
@pytest.mark.thorough
def test_a_worker_stays_until_its_memory_is_above_the_limit(tmp_path):
    command = "site_of_test:app", "--bind", "127.0.0.1:0", "--max-rss", "256"
    with serving(tmp_path, *command, app=GROW) as (process, port):
        before = children_of(process.pid)
        time.sleep(2.5)  # it looks once a second
        assert before == children_of(process.pid)
        assert (200, "hello") == ask(port, "/grow")
        wait_until(lambda: not before & children_of(process.pid))
        assert (200, "hello") == ask(port, "/")
        stop(process)


@pytest.mark.real
@pytest.mark.thorough
def test_a_change_of_a_file_reloads(tmp_path):
    """Also one of the same size in the same second, for which a cached module would still be valid."""
    command = "site_of_test:app", "--bind", "127.0.0.1:0", "--reload"
    with serving(tmp_path, *command) as (process, port):
        file, edited = tmp_path / "site_of_test.py", tmp_path / "edited"
        edited.write_text(file.read_text().replace('b"hello"', 'b"again"'))
        os.utime(edited, ns=(0, file.stat().st_mtime_ns + 1))
        edited.replace(file)
        wait_until(lambda: ask(port, "/") == (200, "again"))
        stop(process)


@pytest.mark.real
@pytest.mark.thorough
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL], ids=lambda number: number.name)
def test_signals_under_load_lose_at_most_the_requests_of_a_killed_worker(tmp_path, number):
    """1,000 answers in a row after the signal, or the end of the server; a reload replaces all workers."""

    def act(count):
        if count == 1000:
            pid = process.pid if number != signal.SIGKILL else min(children_of(process.pid))
            os.kill(pid, number)
        elif count >= 2500 and not count % 50 and not must_leave & children_of(process.pid):
            process.send_signal(signal.SIGTERM)

    with serving(tmp_path, "site_of_test:app", "--bind", "127.0.0.1:0", "--workers", "2", app=APP) as (process, port):
        must_leave = children_of(process.pid) if number == signal.SIGHUP else set()
        load = Load(port, act)
        load.run(8)
        assert 0 == process.wait(SECONDS)
    assert len(load.lost) <= (8 if number == signal.SIGKILL else 0)
    assert load.answered >= (1000 if number == signal.SIGTERM else 2500)


@pytest.mark.sampled(1)
@pytest.mark.real
@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_access_log_is_json_on_a_pipe(tmp_path, workers):
    command = "site_of_test:app", "--bind", "127.0.0.1:0", "--workers", workers
    with serving(tmp_path, *command, stdout=subprocess.PIPE) as (process, port):
        assert (200, "hello") == ask(port, "/?a")
        assert "/?a" == json.loads(process.stdout.readline())["target"]
        stop(process)


@pytest.mark.real
@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.thorough)])
def test_systemd_gets_the_watchdog(tmp_path, monkeypatch, workers):
    path = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    monkeypatch.setenv("WATCHDOG_USEC", "4000000")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(SECONDS)
        command = "site_of_test:app", "--bind", "127.0.0.1:0", "--workers", workers
        with serving(tmp_path, *command) as (process, _):
            # The parent of several workers may report several times while they start.
            left = {b"READY=1", b"WATCHDOG=1"}
            while left:
                left.discard(manager.recv(100))
            stop(process)
