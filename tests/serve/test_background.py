"""The threads that an application starts beside its requests, at the stop of the process that serves it."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import textwrap

import pytest

from .test_command import SECONDS, fetch, serving
from .test_gunicorn import gunicorn
from .test_operation import free_port
from .test_workers import children_of, wait_until

pytestmark = pytest.mark.real

# A handler that ends after the stop has begun, and passes work to a thread that waits for it without end.
WORKER = """
    import queue
    import threading
    import time

    import vthreads
    {setup}

    work = {queue}()

    def pack():
        try:
            while True:
                print("packed", work.get(), vthreads.stopping(), flush=True)
        finally:
            vthreads.sleep(0.01)
            print("cleaned up", flush=True)

    {start}

    def app(environ, start_response):
        print("begun", flush=True)
        while environ["PATH_INFO"] == "/last" and not vthreads.stopping():
            time.sleep(0.01)
        work.put("order")
        start_response("200 OK", [("Content-Length", "5")])
        return [b"hello"]
"""
SPAWNED = WORKER.format(setup="", queue="vthreads.Queue", start="vthreads.spawn(pack)")
THREADS = WORKER.format(
    setup="vthreads.patch(threads=True)", queue="queue.Queue", start="threading.Thread(target=pack).start()"
)
# A thread that never looks at `stopping`, and one that ends by itself some time after the stop.
ENDLESS = """
    import time

    import vthreads

    def wait():
        try:
            while True:
                time.sleep(0.01)
        finally:
            time.sleep(0.01)
            print("cleaned up", flush=True)

    vthreads.spawn(wait)

    def app(environ, start_response):
        start_response("200 OK", [("Content-Length", "5")])
        return [b"hello"]
"""
SLOW = ENDLESS.replace("while True:", "while not vthreads.stopping():").replace(
    'print("cleaned up"', 'print("ending", flush=True); time.sleep(1); print("ended"'
)
AT = "site_of_test:app", "--bind", "127.0.0.1:0", "--access-log", "off"
LAST = b"GET /last HTTP/1.1\r\nHost: a\r\n\r\n"


@contextlib.contextmanager
def process_of(kind, folder, app):
    if kind == "gunicorn":
        with gunicorn(folder, "-w", "2", app=app) as started:
            yield started
        return
    with serving(folder, *AT, "--workers", kind, app=app, stdout=subprocess.PIPE) as started:
        yield started


@pytest.mark.parametrize(
    ("kind", "app"),
    [
        ("1", SPAWNED),
        pytest.param("1", THREADS, marks=pytest.mark.thorough),
        pytest.param("2", SPAWNED, marks=pytest.mark.thorough),
        pytest.param("gunicorn", SPAWNED, marks=pytest.mark.thorough),
    ],
    ids=["one process", "threads of threading", "workers", "gunicorn"],
)
def test_a_worker_of_a_queue_gets_the_last_work_and_is_cancelled(tmp_path, kind, app):
    with (
        process_of(kind, tmp_path, app) as (process, port),
        socket.create_connection(("127.0.0.1", port)) as sock,
    ):
        sock.sendall(LAST)
        assert "begun\n" == process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert sock.recv(1000).endswith(b"hello")
        out, errors = process.communicate(timeout=SECONDS)
    assert 0 == process.returncode
    assert "packed order True" in out
    assert (1 if kind == "1" else 2) == out.count("cleaned up")
    assert "Traceback" not in errors
    assert "not ended" not in errors


@pytest.mark.parametrize("kind", ["1", pytest.param("2", marks=pytest.mark.thorough)])
def test_a_thread_that_does_not_end_is_cancelled_after_the_drain_and_named(tmp_path, kind):
    command = *AT, "--workers", kind, "--drain", "0.2"
    with serving(tmp_path, *command, app=ENDLESS, stdout=subprocess.PIPE) as (process, _):
        process.send_signal(signal.SIGTERM)
        out, errors = process.communicate(timeout=SECONDS)
    assert 0 == process.returncode
    assert int(kind) == out.count("cleaned up")
    assert "threads beside the requests are cancelled, which did not end within 0.2 s: 1: " in errors
    assert ", called at " in errors
    assert "in wait\n" in errors


@pytest.mark.thorough
def test_gunicorn_cancels_a_thread_that_does_not_end_before_it_kills(tmp_path):
    with gunicorn(tmp_path, "--graceful-timeout", "4", app=ENDLESS) as (process, port):
        assert b"hello" == fetch(port)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=SECONDS)
    assert (0, "cleaned up\n") == (process.returncode, out)


@pytest.mark.parametrize("again", [signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.thorough)])
def test_a_further_signal_does_not_end_a_thread_that_finishes_its_work(tmp_path, again):
    """The parent of workers sends SIGTERM again to one that is being replaced when all stop."""
    with serving(tmp_path, *AT, app=SLOW, stdout=subprocess.PIPE) as (process, _):
        process.send_signal(signal.SIGTERM)
        assert "ending\n" == process.stdout.readline()
        process.send_signal(again)
        assert "ended\n" == process.stdout.readline()
        assert 0 == process.wait(SECONDS)


@pytest.mark.thorough
def test_ctrl_c_cancels_a_thread_that_finishes_its_work(tmp_path):
    app = SLOW.replace("time.sleep(1)", "time.sleep(3600)")
    with serving(tmp_path, *AT, app=app, stdout=subprocess.PIPE) as (process, _):
        process.send_signal(signal.SIGTERM)
        assert "ending\n" == process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert -signal.SIGINT == process.wait(SECONDS)


@pytest.mark.thorough
@pytest.mark.parametrize("cause", ["SIGHUP", "max_requests", "reload"])
def test_threads_end_with_a_worker_that_is_replaced(tmp_path, cause):
    options = {"SIGHUP": ["--workers", "2"], "max_requests": ["--max-requests", "1"], "reload": ["--reload"]}[cause]
    with serving(tmp_path, *AT, *options, app=SPAWNED, stdout=subprocess.PIPE) as (process, port):
        before = children_of(process.pid)
        assert b"hello" == fetch(port)
        assert {"begun\n", "packed order False\n"} == {process.stdout.readline() for _ in range(2)}
        if cause == "SIGHUP":
            process.send_signal(signal.SIGHUP)
        elif cause == "reload":
            (tmp_path / "another.py").write_text("")
        assert ["cleaned up\n"] * len(before) == [process.stdout.readline() for _ in before]
        wait_until(lambda: not before & children_of(process.pid))
        assert b"hello" == fetch(port)
        process.send_signal(signal.SIGTERM)
        assert 0 == process.wait(SECONDS)
        errors = process.stderr.read()
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("name", "ending", "status"),
    [
        ("app", "raise ImportError('broken')", 1),
        pytest.param("missing", "", 2, marks=pytest.mark.thorough),
        pytest.param("app", "raise SystemExit(7)", 7, marks=pytest.mark.thorough),
        pytest.param("app", "TAKEN", 1, marks=pytest.mark.thorough),
    ],
    ids=["import", "name", "exit", "address"],
)
@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.thorough)])
def test_a_process_that_cannot_serve_ends_with_its_threads(tmp_path, name, ending, status, workers):
    (tmp_path / "site_of_test.py").write_text(textwrap.dedent(ENDLESS) + ending.replace("TAKEN", ""))
    port = free_port()
    with contextlib.ExitStack() as stack:
        if ending == "TAKEN":
            port = stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
        command = [sys.executable, "-m", "vthreads", "serve", f"site_of_test:{name}", "--workers", workers]
        command += ["--bind", f"127.0.0.1:{port}", "--app-dir", str(tmp_path)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert status == ended.returncode
    # The parent of several workers opens the address before it starts them.
    assert ("ImportError: broken" in ended.stderr) is ("broken" in ending)
    assert ("cleaned up" in ended.stdout) is (workers == "1" or ending != "TAKEN")
    assert "DeadlockError" not in ended.stderr


POOL = """
    import vthreads
    vthreads.patch(threads=True)
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(2)
    pool.submit(int).result()

    def app(environ, start_response):
        start_response("200 OK", [])
        return []
"""


def test_an_idle_worker_of_a_pool_reports_nothing_at_ctrl_c(tmp_path):
    with serving(tmp_path, *AT, app=POOL) as (process, _):
        process.send_signal(signal.SIGINT)
        assert -signal.SIGINT == process.wait(SECONDS)
        errors = process.stderr.read()
    assert "Exception in worker" not in errors


IGNORING = """
    import time

    import vthreads

    def wait():
        while True:
            try:
                time.sleep(0.01)
            except BaseException:
                pass

    vthreads.spawn(wait)

    def app(environ, start_response):
        start_response("200 OK", [])
        return []
"""


@pytest.mark.thorough
def test_a_thread_that_ignores_its_cancellation_does_not_keep_the_process(tmp_path):
    with serving(tmp_path, *AT, "--drain", "0.1", app=IGNORING) as (process, _):
        process.send_signal(signal.SIGTERM)
        assert 0 == process.wait(SECONDS)
        errors = process.stderr.read()
    assert "threads beside the requests are cancelled" in errors
    assert "not ended" in errors


# A worker of a queue, and an OS thread beside it that nothing can prove to be idle.
OS_THREAD = (
    SPAWNED
    + """
    import socket

    one, other = socket.socketpair()
    {}
"""
)


@pytest.mark.parametrize(
    ("start", "is_waited_for"),
    [
        ("threading.Thread(target=one.recv, args=[1], daemon=True).start()", True),
        pytest.param("vthreads.offload(len, [])", False, marks=pytest.mark.thorough),
    ],
    ids=["of the application", "of offload"],
)
def test_a_worker_of_a_queue_beside_an_os_thread_has_the_time_of_the_drain(tmp_path, start, is_waited_for):
    app = OS_THREAD.replace("{}", start)
    drain = "0.5" if is_waited_for else "600"
    with serving(tmp_path, *AT, "--drain", drain, app=app, stdout=subprocess.PIPE) as (process, _):
        process.send_signal(signal.SIGTERM)
        out, errors = process.communicate(timeout=SECONDS)
    assert (0, "cleaned up\n") == (process.returncode, out)
    # The OS thread might have put something into the queue.
    assert ("which did not end within 0.5 s: 1: " in errors) is is_waited_for


# What Python does at the end of a process: it joins OS threads that are no daemons, then it calls `atexit` functions.
LEAVING = """
    import atexit
    import os
    import threading

    # One write for a line, because two workers write at the same time.
    def leave():
        threading.main_thread().join()
        os.write(1, b"os thread\\n")

    # The interpreter calls it after all OS threads have ended.
    atexit.register(os.write, 1, b"at exit\\n")
    threading.Thread(target=leave).start()

    def app(environ, start_response):
        start_response("200 OK", [("Content-Length", "5")])
        return [b"hello"]
"""


@pytest.mark.parametrize("kind", ["1", "2", pytest.param("gunicorn", marks=pytest.mark.thorough)])
def test_os_threads_and_atexit_functions_end_as_in_a_process_of_python(tmp_path, kind):
    with process_of(kind, tmp_path, LEAVING) as (process, port):
        assert b"hello" == fetch(port)
        process.send_signal(signal.SIGTERM)
        out, errors = process.communicate(timeout=SECONDS)
    assert 0 == process.returncode
    count = 1 if kind == "1" else 2
    assert ["at exit"] * count + ["os thread"] * count == sorted(out.splitlines())
    assert out.startswith("os thread\n")
    assert out.endswith("at exit\n")
    assert "not ended" not in errors


@pytest.mark.thorough
@pytest.mark.parametrize("cause", ["SIGHUP", "max_requests", "SIGINT", "import"])
def test_atexit_functions_run_however_a_worker_ends(tmp_path, cause):
    app, options = LEAVING, ["--workers", "2"]
    if cause == "max_requests":
        options = ["--max-requests", "1"]
    elif cause == "import":
        app += "\n    raise ImportError('broken')\n"
    with serving(tmp_path, *AT, *options, app=app, stdout=subprocess.PIPE) as (process, port):
        if cause == "max_requests":
            assert b"hello" == fetch(port)
        elif cause != "import":
            process.send_signal(signal.Signals[cause])
        assert "os thread\n" == process.stdout.readline()
        while (line := process.stdout.readline()) != "at exit\n":
            assert "os thread\n" == line


@pytest.mark.thorough
def test_a_long_cleanup_and_then_an_os_thread_together_do_not_make_the_parent_kill(tmp_path):
    app = ENDLESS.replace("time.sleep(0.01)\n            print", "time.sleep(4.2)\n            print")
    app += """
    import socket
    import threading
    one, other = socket.socketpair()
    threading.Thread(target=one.recv, args=[1]).start()
"""
    with serving(tmp_path, *AT, "--workers", "2", "--drain", "0.1", app=app, stdout=subprocess.PIPE) as (process, _):
        process.send_signal(signal.SIGTERM)
        out, errors = process.communicate(timeout=SECONDS)
    assert 2 == out.count("cleaned up")
    assert "another thread has not ended" in errors
    assert "did not stop and is killed" not in errors
