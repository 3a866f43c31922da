"""The worker of gunicorn: requests in time, stop, reload, recycling, heartbeat, settings, hooks and access log."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import pytest
import trustme

import vthreads

from .test_command import APP, SECONDS, Load, fetch
from .test_operation import PIN
from .test_signals import name_served, write_certificate
from .test_workers import children_of, has_ended, wait_until

pytestmark = pytest.mark.real

# More than the system allows.
NO_PROCESS = 1 << 22
WORKER = "vthreads.integrations.gunicorn.Worker"
SHOW = """
    import vthreads

    def app(environ, start_response):
        start_response("200 OK", [("X-Mine", "yes")])
        shown = [environ["wsgi.url_scheme"], environ["REMOTE_ADDR"], environ["SCRIPT_NAME"], environ["PATH_INFO"]]
        # The application has been imported on the patched root.
        return [" ".join([*shown, str(vthreads.current_thread() is not None)]).encode()]
"""


@contextlib.contextmanager
def gunicorn(folder, *arguments, app=APP, config=""):
    """The master in a process of its own, and the port that it has announced."""
    (folder / "site_of_test.py").write_text(textwrap.dedent(app))
    (folder / "gunicorn.conf.py").write_text(textwrap.dedent(config))
    command = [sys.executable, "-m", "gunicorn", "-k", WORKER, "--chdir", str(folder), "site_of_test:app"]
    command += ["-c", str(folder / "gunicorn.conf.py"), *arguments]
    if "-b" not in arguments:
        command += ["-b", "127.0.0.1:0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            while (found := re.search(r"Listening at: \S+:(\d+)", line := process.stderr.readline())) is None:
                assert line, "it did not start"
            yield process, int(found[1])
        finally:
            process.kill()


def exchange(port, *parts):
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as sock:
        for part in parts:
            sock.sendall(part)
        data = b""
        while piece := sock.recv(65536):
            data += piece
        return data


def test_it_serves_and_sigterm_under_load_loses_no_answer(tmp_path):
    def stop_at(count):
        if count == 300:
            process.send_signal(signal.SIGTERM)

    with gunicorn(tmp_path, "-w", "2", "--keep-alive", "5") as (process, port):
        load = Load(port, stop_at)
        load.run(8)
        assert 0 == process.wait(SECONDS)
    # gunicorn closes its listeners before the workers stop: a connection at that moment may be reset unanswered.
    assert [] == [data for data, _ in load.lost if data]
    assert load.answered >= 300


@pytest.mark.thorough
@pytest.mark.parametrize("cause", ["SIGHUP", "max_requests"])
def test_new_workers_under_load_lose_no_request(tmp_path, cause):
    def act(count):
        if count == 200 and cause == "SIGHUP":
            process.send_signal(signal.SIGHUP)
        elif count > 200 and not count % 20 and not lost and not before & children_of(process.pid):
            # The stop of gunicorn may lose more: it closes its listeners first.
            lost.append(len(load.lost))
            process.send_signal(signal.SIGTERM)

    lost = []
    options = ["--max-requests", "100"] if cause == "max_requests" else []
    with gunicorn(tmp_path, "-w", "2", "--keep-alive", "5", *options) as (process, port):
        assert b"hello" == fetch(port)
        wait_until(lambda: len(children_of(process.pid)) == 2)
        before = children_of(process.pid)
        load = Load(port, act)
        load.run(4)
        assert 0 == process.wait(SECONDS)
    assert [0] == lost


def test_settings_hooks_and_access_log(tmp_path):
    config = """
        keepalive = 0
        accesslog = "-"
        access_log_format = '%(m)s %(U)s %(s)s %({x-mine}o)s %({host}i)s'
        limit_request_line = 100
        limit_request_fields = 5
        limit_request_field_size = 60
        raw_env = ["SCRIPT_NAME=/shop"]

        def pre_request(worker, req):
            worker.log.info("pre %s %s %s", req.method, req.path, req.query)

        def post_request(worker, req, environ, resp):
            worker.log.info("post %s %s", environ["PATH_INFO"], resp.status_code)

        def worker_exit(server, worker):
            worker.log.info("the worker has ended")
    """
    with gunicorn(tmp_path, app=SHOW, config=config) as (process, port):
        forwarded = b"X-Forwarded-For: 10.1.2.3\r\nX-Forwarded-Proto: https\r\n"
        data = exchange(port, b"GET /shop/a?b HTTP/1.1\r\nHost: a\r\n" + forwarded + b"\r\n")
        assert data.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"Connection: close" in data
        assert data.endswith(b"https 10.1.2.3 /shop /a True")
        assert b" 414 " in exchange(port, b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"x" * 100))
        assert b" 431 " in exchange(port, b"GET / HTTP/1.1\r\nHost: a\r\nA: %b\r\n\r\n" % (b"x" * 60))
        assert b" 431 " in exchange(port, b"GET / HTTP/1.1\r\nHost: a\r\n%b\r\n" % (b"A: b\r\n" * 5))
        assert b" 400 " in exchange(port, b"GET / HTTP/1.1\r\n\r\n")
        process.send_signal(signal.SIGTERM)
        out, errors = process.communicate(timeout=SECONDS)
    assert ["GET /a 200 yes a", f"GET /{'x' * 100} 414 - a", "GET / 431 - a", "GET / 431 - a"] == out.splitlines()
    for expected in ("pre GET /shop/a b", "post /a 200", "the worker has ended"):
        assert expected in errors


RECORDED = """
    import threading

    numbers = iter(range(1, 100))
    at_once = threading.Barrier(3)

    def app(environ, start_response):
        number, path = next(numbers), environ["PATH_INFO"]
        if path == "/together":
            at_once.wait()
        if path == "/refused":
            start_response(None, [("X-Mine",)])
        start_response("200 OK", iter([("Content-Length", "0"), ("X-Mine", str(number))]))
        return []
"""


def test_each_of_equal_requests_at_once_is_recorded(tmp_path):
    config = """
        accesslog = "-"
        access_log_format = '%(U)s %(s)s %({x-mine}o)s'

        def post_request(worker, req, environ, resp):
            worker.log.info("post %s %s %s", req.path, resp.status_code, dict(resp.headers)["X-Mine"])
    """
    request = b"GET /%b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    with gunicorn(tmp_path, app=RECORDED, config=config) as (process, port):
        # What was repeated is parsed once.
        for _ in range(3):
            exchange(port, request % b"")
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(exchange, [port] * 3, [request % b"together"] * 3))
        process.send_signal(signal.SIGTERM)
        out, errors = process.communicate(timeout=SECONDS)
    assert ["/ 200 1", "/ 200 2", "/ 200 3", "/together 200 4", "/together 200 5", "/together 200 6"] == sorted(
        out.splitlines()
    )
    assert ["4", "5", "6"] == sorted(re.findall(r"post /together 200 (\d)", errors))


def test_a_record_that_fails_does_not_end_the_connection(tmp_path):
    config = """
        accesslog = "-"
        access_log_format = '%(U)s %(s)s'

        def post_request(worker, req, environ, resp):
            raise ValueError("of the hook")
    """
    request = b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n"
    with gunicorn(tmp_path, app=RECORDED, config=config) as (process, port):
        data = exchange(port, request % b"a" + request % b"b" + request % b"refused")
        assert [b"200", b"200", b"500"] == re.findall(rb"HTTP/1.1 (\d+)", data)
        process.send_signal(signal.SIGTERM)
        out, errors = process.communicate(timeout=SECONDS)
    assert ["/a 200", "/b 200", "/refused 500"] == out.splitlines()
    assert 3 == errors.count("ValueError: of the hook")
    assert "post_request failed for GET /a" in errors
    assert "Exception in thread" not in errors


def test_an_idle_connection_ends_after_keepalive(tmp_path):
    with gunicorn(tmp_path, "--keep-alive", "1") as (_, port):
        # Without the setting, that would be after 75 s.
        data = exchange(port, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert data.endswith(b"hello")
    assert b"Connection: close" not in data


def test_the_access_log_has_what_the_formats_of_gunicorn_name(tmp_path):
    config = """
        accesslog = "-"
        workers = 2
        access_log_format = '%(h)s "%(r)s" %(s)s %(b)s %(f)s %(a)s %({x-field}i)s %({wsgi.multiprocess}e)s %(D)s'
    """
    fields = b"Host: a\r\nReferer: r\r\nUser-Agent: u\r\nX-Field: f\r\nConnection: close\r\n\r\n"
    with gunicorn(tmp_path, app=APP, config=config) as (process, port):
        first = exchange(port, b"GET /slow?q HTTP/1.0\r\n" + fields)
        # The server itself refuses it.
        second = exchange(port, b"POST / HTTP/1.0\r\nContent-Length: 999999999\r\n" + fields)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=SECONDS)
    lines = [line.rpartition(" ") for line in out.splitlines()]
    assert [
        f'127.0.0.1 "GET /slow?q HTTP/1.0" 200 {len(first)} r u f True',
        f'127.0.0.1 "POST / HTTP/1.0" 413 {len(second)} - - f -',
    ] == [line for line, _, _ in lines]
    assert int(lines[0][2]) >= 300_000


def test_a_worker_that_cannot_start_ends_with_its_threads(tmp_path):
    app = """
        import time

        import vthreads

        def wait():
            try:
                while True:
                    time.sleep(0.01)
            finally:
                print("cleaned up", flush=True)

        vthreads.spawn(wait)
        time.sleep(0.05)
        raise ImportError("broken")
    """
    (tmp_path / "site_of_test.py").write_text(textwrap.dedent(app))
    command = [sys.executable, "-m", "gunicorn", "-k", WORKER, "--chdir", str(tmp_path), "-b", "127.0.0.1:0"]
    # The master would kill a worker that stays, and start others.
    command += ["--timeout", "0", "site_of_test:app"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert (3, "cleaned up\n") == (ended.returncode, ended.stdout)
    assert "ImportError: broken" in ended.stderr


@pytest.mark.thorough
def test_a_thread_that_outlives_the_server_does_not_stop_the_heartbeat(tmp_path):
    app = """
        import time

        import vthreads

        def finish():
            while not vthreads.stopping():
                time.sleep(0.01)
            # Longer than the master waits for a heartbeat.
            time.sleep(5)
            print("finished", flush=True)

        vthreads.spawn(finish)

        def app(environ, start_response):
            start_response("200 OK", [("Content-Length", "5")])
            return [b"hello"]
    """
    with gunicorn(tmp_path, "--timeout", "2", "--max-requests", "1", app=app) as (process, port):
        assert b"hello" == fetch(port)
        assert "finished\n" == process.stdout.readline()
        process.send_signal(signal.SIGQUIT)
        _, errors = process.communicate(timeout=SECONDS)
    assert "WORKER TIMEOUT" not in errors


@pytest.mark.thorough
def test_after_the_stop_connections_are_refused_while_a_thread_finishes(tmp_path):
    app = f"""
        import os
        import time

        import vthreads

        def finish():
            while not os.path.exists({str(tmp_path / "finish")!r}):
                time.sleep(0.01)
            print("finished", flush=True)

        vthreads.spawn(finish)

        def app(environ, start_response):
            start_response("200 OK", [("Content-Length", "5")])
            return [b"hello"]
    """

    def is_refused():
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            return True
        return False

    with gunicorn(tmp_path, app=app) as (process, port):
        assert b"hello" == fetch(port)
        process.send_signal(signal.SIGTERM)
        wait_until(is_refused)
        (tmp_path / "finish").touch()
        out, _ = process.communicate(timeout=SECONDS)
    # The thread was not cancelled: connections were refused before the worker ended.
    assert (0, "finished\n") == (process.returncode, out)


def test_fields_of_an_unknown_proxy_are_dropped(tmp_path):
    with gunicorn(tmp_path, "--forwarded-allow-ips", "10.0.0.1", "--keep-alive", "0", app=SHOW) as (_, port):
        data = exchange(port, b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 10.1.2.3\r\n\r\n")
    assert data.endswith(b"http 127.0.0.1  / True")


def test_every_address_and_a_unix_socket_may_be_trusted(tmp_path):
    path = str(tmp_path / "socket")
    request = b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 10.1.2.3\r\n\r\n"
    with gunicorn(tmp_path, "--forwarded-allow-ips", "*", "--keep-alive", "0", app=SHOW) as (_, port):
        assert exchange(port, request).endswith(b"http 10.1.2.3  / True")
    # Without an address, the peer is on this machine, also if no address is trusted that it could have.
    binds = "-b", "127.0.0.1:0", "-b", f"unix:{path}"
    options = *binds, "--forwarded-allow-ips", "10.0.0.1", "--keep-alive", "0"
    with gunicorn(tmp_path, *options, app=SHOW), socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(SECONDS)
        sock.connect(path)
        sock.sendall(request)
        data = b""
        while piece := sock.recv(65536):
            data += piece
        assert data.endswith(b"http 10.1.2.3  / True")


@pytest.mark.parametrize(("value", "is_reported"), [("drop", False), ("refuse", True), ("dangerous", True)])
def test_a_header_map_without_effect_is_reported(caplog, value, is_reported):
    from gunicorn.config import Config

    from vthreads.integrations.gunicorn import Worker

    config = Config()
    config.set("header_map", value)
    Worker.check_config(config, logging.getLogger("of the test"))
    expected = [f"header_map={value} has no effect: header fields with an underscore are dropped"]
    assert (expected if is_reported else []) == caplog.messages


def test_limits_of_a_subclass_and_the_number_of_connections(tmp_path):
    (tmp_path / "worker_of_test.py").write_text(
        textwrap.dedent("""
            from vthreads.integrations.gunicorn import Worker
            from vthreads.serve import Limits

            class Mine(Worker):
                limits = Limits(body_bytes=4, age_seconds=0)
        """)
    )
    options = "-k", "worker_of_test.Mine", "--worker-connections", "1", "--keep-alive", "60"
    with gunicorn(tmp_path, *options) as (_, port), socket.create_connection(("127.0.0.1", port)) as first:
        first.settimeout(SECONDS)
        first.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert first.recv(1000).startswith(b"HTTP/1.1 200 ")
        with socket.create_connection(("127.0.0.1", port)) as second:
            second.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello")
            # As long as the first connection is open, no time is enough.
            second.settimeout(0.5)
            with pytest.raises(TimeoutError):
                second.recv(1000)
            first.close()
            second.settimeout(SECONDS)
            assert second.recv(1000).startswith(b"HTTP/1.1 413 ")


# At the end of `graceful_timeout` the master kills: what is cancelled must have ended before.
@pytest.mark.parametrize(("seconds", "drain"), [("30", 28.0), ("3", 1.5), ("0", 0.0)])
def test_a_part_of_the_graceful_timeout_is_left_for_the_cleanup(monkeypatch, seconds, drain):
    from gunicorn.config import Config

    from vthreads.integrations.gunicorn import Worker
    from vthreads.serve import _gunicorn

    config, found = Config(), []
    config.set("graceful_timeout", seconds)
    monkeypatch.setattr(_gunicorn, "serve_application", lambda app, addresses, options, ready: found.append(options))
    worker = Worker(0, os.getppid(), [], None, 30, config, logging.getLogger("of the test"))
    try:
        worker.wsgi = None
        vthreads.run(worker.run)
    finally:
        worker.tmp.close()
    assert [drain] == [options.drain for options in found]


# The master closes its listeners before it stops all workers, but not before a reload.
@pytest.mark.parametrize("listens", [True, False, None], ids=["listens", "has closed", "cannot be asked"])
def test_a_stop_finds_out_whether_the_master_still_listens(listens):
    from gunicorn.config import Config

    from vthreads.integrations.gunicorn import Worker

    class Stopped:
        _shares_listeners = None

        def __init__(self, listener):
            self._listeners = [listener]

        def stop(self):
            self.found = self._shares_listeners

    command = [sys.executable, "-c", "input()"]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        inherited = [listener.fileno()] if listens else []
        with subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=inherited) as master:
            # Processes of another user have no readable folder, as one that does not exist.
            pid = NO_PROCESS if listens is None else master.pid
            worker = Worker(0, pid, [], None, 30, Config(), logging.getLogger("of the test"))
            try:
                worker._server = server = Stopped(listener)
                worker.handle_exit(signal.SIGTERM, None)
            finally:
                worker.tmp.close()
                master.kill()
    # Not to know it must not stop the new connections of other workers.
    assert (listens is not False) is server.found


@pytest.mark.thorough
def test_the_reloader_replaces_the_worker(tmp_path):
    site = tmp_path / "site_of_test.py"

    def has_changed():
        # Again and again: the reloader sees no change from before its first look at the file, and Python would take the
        # compiled file for current within the same second.
        os.utime(site)
        return fetch(port) == b"again"

    with gunicorn(tmp_path, "--reload", "--reload-engine", "poll") as (_, port):
        assert b"hello" == fetch(port)
        site.write_text(textwrap.dedent(APP).replace("hello", "again"))
        wait_until(has_changed)


def test_the_proxy_protocol(tmp_path):
    options = "--proxy-protocol", "auto", "--keep-alive", "0"
    with gunicorn(tmp_path, *options, app=SHOW) as (_, port):
        data = exchange(port, b"PROXY TCP4 10.1.2.3 10.1.2.4 1 2\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert data.endswith(b"http 10.1.2.3  / True")


def test_different_trust_for_the_proxy_protocol_is_refused(tmp_path):
    (tmp_path / "site_of_test.py").write_text(textwrap.dedent(APP))
    command = [sys.executable, "-m", "gunicorn", "-k", WORKER, "--chdir", str(tmp_path), "-b", "127.0.0.1:0"]
    command += ["--proxy-protocol", "v1", "--proxy-allow-from", "10.0.0.1", "site_of_test:app"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert 0 != ended.returncode
    assert "set both to the addresses of the proxies" in ended.stderr


def test_tls(tmp_path):
    authority = trustme.CA()
    write_certificate(tmp_path, authority, "shop.example")
    files = "--certfile", str(tmp_path / "cert.pem"), "--keyfile", str(tmp_path / "key.pem")
    with gunicorn(tmp_path, *files) as (_, port):
        assert "shop.example" == name_served(authority, port)


@pytest.mark.thorough
def test_a_pinned_worker_has_no_heartbeat_and_is_replaced(tmp_path):
    with gunicorn(tmp_path, "--timeout", "3", app=PIN) as (process, port):
        assert b"hello" == fetch(port)
        before = children_of(process.pid)
        with contextlib.suppress(ConnectionResetError):
            exchange(port, b"GET /pin HTTP/1.1\r\nHost: a\r\n\r\n")
        wait_until(lambda: (now := children_of(process.pid)) and not now & before)
        assert b"hello" == fetch(port)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=SECONDS)
    assert "WORKER TIMEOUT" in errors
    assert 'site_of_test.py", line ' in errors


@pytest.mark.sampled(1)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_a_quick_stop_cancels_what_is_under_way(tmp_path, number):
    app = APP.replace("time.sleep(0.3)", "time.sleep(3600)")
    with gunicorn(tmp_path, app=app) as (process, port), socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b"hello" == fetch(port)
        process.send_signal(number)
        process.wait(SECONDS)


@pytest.mark.thorough
def test_a_pinned_worker_ends_when_its_master_is_killed(tmp_path):
    with gunicorn(tmp_path, "--graceful-timeout", "0", app=PIN) as (process, port):
        assert b"hello" == fetch(port)
        workers = children_of(process.pid)
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.sendall(b"GET /pin HTTP/1.1\r\nHost: a\r\n\r\n")
            process.kill()
            process.wait(SECONDS)
            wait_until(lambda: all(map(has_ended, workers)))


@pytest.mark.thorough
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_stop_while_a_worker_starts_is_not_lost(tmp_path, number):
    stopped = tmp_path / "stopped"
    # A function that the worker calls before it sets its handlers of signals.
    config = f"""
        import os, pathlib, signal
        import gunicorn.util

        def seed(before=gunicorn.util.seed):
            stopped = pathlib.Path({str(stopped)!r})
            if not stopped.exists():
                stopped.write_text(str(os.getpid()))
                os.kill(os.getpid(), {number})
            before()

        gunicorn.util.seed = seed
    """
    with gunicorn(tmp_path, config=config) as (_, port):
        wait_until(lambda: stopped.exists() and has_ended(int(stopped.read_text() or 1)))
        assert b"hello" == fetch(port)


LOGS = """
    import logging
    import sys

    logging.basicConfig()

    def app(environ, start_response):
        path = environ["PATH_INFO"]
        if path == "/print":
            print("x" * 5000)
        else:
            logging.getLogger("gunicorn.error" if path == "/gunicorn" else "shop").warning("x" * 5000)
        start_response("200 OK", [("Content-Length", "5")])
        return [b"hello"]
"""


def test_only_the_worker_is_patched(tmp_path):
    # By its number: the patch replaces references to the object.
    config = """
        import time

        original = id(time.sleep)

        def post_worker_init(worker):
            print("worker", id(time.sleep) == original, flush=True)

        def on_exit(server):
            print("master", id(time.sleep) == original, flush=True)
    """
    with gunicorn(tmp_path, config=config) as (process, port):
        assert b"hello" == fetch(port)
        process.send_signal(signal.SIGTERM)
        assert "worker False\nmaster True\n" == process.communicate(timeout=SECONDS)[0]


def test_a_request_that_the_server_refuses_is_recorded_as_itself(tmp_path):
    config = """
        keepalive = 60
        accesslog = "-"
        access_log_format = "%(U)s %(s)s"
    """
    with gunicorn(tmp_path, config=config) as (process, port):
        second = b"POST /second HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999\r\n\r\n"
        exchange(port, b"GET /first HTTP/1.1\r\nHost: a\r\n\r\n" + second)
        assert ["/first 200\n", "/second 413\n"] == [process.stdout.readline() for _ in range(2)]


def test_threads_that_nothing_can_unpark_do_not_delay_the_stop(tmp_path):
    app = """
        import vthreads

        vthreads.spawn(vthreads.Queue().get)

        def app(environ, start_response):
            start_response("200 OK", [("Content-Length", "5")])
            return [b"hello"]
    """
    with gunicorn(tmp_path, "--graceful-timeout", "3600", app=app) as (process, port):
        assert b"hello" == fetch(port)
        process.send_signal(signal.SIGTERM)
        assert 0 == process.wait(SECONDS)


def test_the_heartbeat_begins_with_the_server(tmp_path):
    # The import of the application may have used most of the time that the master allows for a beat.
    (tmp_path / "worker_of_test.py").write_text(
        textwrap.dedent("""
            from vthreads.integrations.gunicorn import Worker
            from vthreads.serve import _heartbeat

            _heartbeat.BETWEEN_BEATS = 3600

            class Mine(Worker):
                def notify(self):
                    print("notified", flush=True)
                    super().notify()
        """)
    )
    with gunicorn(tmp_path, "-k", "worker_of_test.Mine", "--timeout", "3600") as (process, _):
        assert "notified\n" == process.stdout.readline()


def test_what_waits_for_the_reader_of_a_log_is_written_when_it_reads(tmp_path):
    app = """
        def app(environ, start_response):
            # More than a pipe holds.
            print("x" * 300_000, flush=True)
            start_response("200 OK", [("Content-Length", "5")])
            return [b"hello"]
    """
    with gunicorn(tmp_path, app=app) as (process, port):
        assert b"hello" == fetch(port)
        assert "x" * 300_000 == process.stdout.readline().rstrip()


@pytest.mark.thorough
@pytest.mark.parametrize("options", [[], ["--preload"]], ids=["", "preloaded"])
def test_logs_that_nobody_reads_do_not_stop_the_worker(tmp_path, options):
    """Each of them exceeds what a pipe holds."""
    access = "--access-logfile", "-", "--access-logformat", "y" * 5000
    with gunicorn(tmp_path, *access, *options, app=LOGS) as (process, port):
        for path in ["gunicorn", "shop", "print"] * 20:
            assert b"hello" == fetch(port, path)
        process.send_signal(signal.SIGTERM)
        out, errors = process.communicate(timeout=SECONDS)
        assert 0 == process.returncode
    # What the pipes hold is there, and the rest as far as the worker could write it when the reader came.
    assert 10 < out.count("y" * 5000)
    assert 10 < errors.count("x" * 5000)
