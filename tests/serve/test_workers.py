"""`python -m vthreads serve --workers N`: shared listeners, replacement, reload and stop, under load."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time

import pytest

from .test_command import SECONDS, Load, fetch, serving

pytestmark = pytest.mark.real

APP = """
    import os
    import time

    def app(environ, start_response):
        path = environ["PATH_INFO"]
        if path == "/slow":
            time.sleep(0.3)
        start_response("200 OK", [])
        return [b"%d VERSION" % os.getpid() if path == "/pid" else b"hello"]
"""
COMMAND = ["site_of_test:app", "--bind", "127.0.0.1:0", "--workers", "2"]
# Attempts to see a state that other processes reach; each waits for an answer or 0.05 s.
ATTEMPTS = 400


def workers_of(port):
    """The processes that have answered 30 requests of new connections, and their versions."""
    answers = {fetch(port, "pid") for _ in range(30)}
    return {int(answer.split()[0]) for answer in answers}, {answer.split()[1] for answer in answers}


def children_of(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return {int(child) for child in file.read().split()}


def wait_until(reached):
    for _ in range(ATTEMPTS):
        if reached():
            return
        time.sleep(0.05)  # another process works meanwhile
    raise AssertionError("not reached")


def stop(process):
    process.send_signal(signal.SIGTERM)
    assert 0 == process.wait(SECONDS)


@pytest.mark.thorough
def test_several_processes_serve_and_end_together(tmp_path):
    with serving(tmp_path, *COMMAND, app=APP) as (process, port):
        children = children_of(process.pid)
        assert 2 == len(children)
        assert workers_of(port)[0] <= children
        stop(process)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


@pytest.mark.thorough
def test_sigterm_under_load_loses_no_request(tmp_path):
    def stop_at(count):
        if count == 300:
            process.send_signal(signal.SIGTERM)

    with serving(tmp_path, *COMMAND, app=APP) as (process, port):
        load = Load(port, stop_at)
        load.run(8)
        assert 0 == process.wait(SECONDS)
    assert [] == load.lost
    assert load.sent == load.answered >= 300


def test_a_reload_under_load_loses_no_request_and_serves_the_new_code(tmp_path):
    def act(count):
        if count == 200:
            (tmp_path / "site_of_test.py").write_text(source.replace("VERSION", "NEW"))
            process.send_signal(signal.SIGHUP)
        elif count > 200 and not count % 50 and not before & children_of(process.pid):
            process.send_signal(signal.SIGTERM)

    with serving(tmp_path, *COMMAND, app=APP) as (process, port):
        source = (tmp_path / "site_of_test.py").read_text()
        before = children_of(process.pid)
        load = Load(port, act)
        load.run(8)
        assert 0 == process.wait(SECONDS)
    assert [] == load.lost
    assert load.sent == load.answered > 200


@pytest.mark.thorough
def test_a_reload_that_fails_keeps_the_old_workers(tmp_path):
    with serving(tmp_path, *COMMAND, app=APP) as (process, port):
        before = children_of(process.pid)
        (tmp_path / "site_of_test.py").write_text("raise ImportError('broken')")
        process.send_signal(signal.SIGHUP)
        while "reload is given up" not in process.stderr.readline():
            pass
        assert before == children_of(process.pid)
        assert {b"VERSION"} == workers_of(port)[1]
        stop(process)


def test_a_killed_worker_is_replaced_and_loses_only_its_requests(tmp_path):
    def kill_at(count):
        if count == 200:
            os.kill(victim, signal.SIGKILL)
        elif count == 600:
            process.send_signal(signal.SIGTERM)

    with serving(tmp_path, *COMMAND, app=APP) as (process, port):
        before = children_of(process.pid)
        victim = min(before)
        load = Load(port, kill_at)
        load.run(8)
        assert 0 == process.wait(SECONDS)
    # At most one request of each client was under way.
    assert len(load.lost) <= 8
    assert load.answered >= 600


@pytest.mark.thorough
def test_the_place_of_a_killed_worker_is_filled(tmp_path):
    with serving(tmp_path, *COMMAND, app=APP) as (process, port):
        before = children_of(process.pid)
        victim = min(before)
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: victim not in (now := children_of(process.pid)) and len(now) == 2)
        assert b"hello" == fetch(port)
        stop(process)


def test_workers_end_when_their_parent_is_killed(tmp_path):
    with serving(tmp_path, *COMMAND, app=APP) as (process, port):
        assert b"hello" == fetch(port)
        process.kill()
        process.wait(SECONDS)

    def is_refused():
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            return True
        return False

    wait_until(is_refused)


PIN = """
    def app(environ, start_response):
        while environ["PATH_INFO"] == "/pin":
            pass
        start_response("200 OK", [("Content-Length", "5")])
        return [b"hello"]
"""


def has_ended(pid):
    """Whether a process has ended, perhaps without a parent that has noticed."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.thorough
def test_a_pinned_worker_ends_when_its_parent_is_killed(tmp_path):
    command = *COMMAND, "--drain", "0.1", "--watchdog", "0"
    with serving(tmp_path, *command, app=PIN) as (process, port):
        workers = children_of(process.pid)
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.sendall(b"GET /pin HTTP/1.1\r\nHost: a\r\n\r\n")
            assert b"hello" == fetch(port)
            process.kill()
            process.wait(SECONDS)
            wait_until(lambda: all(map(has_ended, workers)))


def test_a_worker_that_cannot_start_ends_the_command(tmp_path):
    with serving(tmp_path, "site_of_test:missing", *COMMAND[1:], app=APP) as (process, _):
        assert 2 == process.wait(SECONDS)


@pytest.mark.thorough
def test_a_reload_during_a_reload_is_not_lost(tmp_path):
    with serving(tmp_path, *COMMAND, app=APP) as (process, port):
        source = (tmp_path / "site_of_test.py").read_text()
        before = children_of(process.pid)
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: before != children_of(process.pid))
        # The first successor may have imported the old code by now.
        (tmp_path / "site_of_test.py").write_text(source.replace("VERSION", "NEW"))
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: {b"NEW"} == workers_of(port)[1] and len(children_of(process.pid)) == 2)
        stop(process)


# A worker that takes as long to stop as the test.
ENDLESS = """
    import time

    import vthreads

    def wait():
        while True:
            time.sleep(0.01)

    vthreads.spawn(wait)

    def app(environ, start_response):
        start_response("200 OK", [("Content-Length", "5")])
        return [b"hello"]
"""


def test_a_reload_waits_while_too_many_workers_stop(tmp_path):
    with serving(tmp_path, *COMMAND, "--drain", "600", app=ENDLESS) as (process, port):
        old = children_of(process.pid)
        try:
            for count in (4, 6):
                process.send_signal(signal.SIGHUP)
                wait_until(lambda count=count: len(children_of(process.pid)) == count)
                assert b"hello" == fetch(port)
            all_of_them = children_of(process.pid)
            process.send_signal(signal.SIGHUP)
            while "when one of 6 processes has ended" not in process.stderr.readline():
                pass
            assert b"hello" == fetch(port)
            assert all_of_them == children_of(process.pid)
            # The reload goes on as soon as two of the old workers have ended, also by force.
            for pid in old:
                os.kill(pid, signal.SIGKILL)
            wait_until(lambda: len(children_of(process.pid)) == 6 and not old & children_of(process.pid))
            assert 2 == len(children_of(process.pid) - all_of_them)
            assert b"hello" == fetch(port)
        finally:
            for pid in [*children_of(process.pid), process.pid]:
                os.kill(pid, signal.SIGKILL)


PAUSES = """
    import os
    import signal
    import threading
    import time

    from vthreads.serve._board import Board
    from vthreads.serve._workers import Supervisor

    # The first worker serves until it is killed; all others end at once, before or after they are ready.
    def work(pipes):
        if os.path.exists("first"):
            with open("starts", "a") as file:
                print(time.monotonic(), file=file)
            if "READY" == "ready":
                os.write(pipes.ready, b"r")
            return 3
        with open("first", "w") as file:
            print(os.getpid(), file=file)
        os.write(pipes.ready, b"r")
        while True:
            time.sleep(1)

    def announce(what):
        if what == "ready":
            with open("first") as file:
                os.kill(int(file.read()), signal.SIGKILL)
        elif what == "watchdog" and os.path.exists("starts"):
            with open("starts") as file:
                if file.read().count("\\n") > 5:
                    os.kill(os.getpid(), signal.SIGTERM)

    raise SystemExit(Supervisor(work, 1, 1.0, announce, Board(4)).run())
"""


@pytest.mark.thorough
@pytest.mark.parametrize("state", ["starting", "ready"])
def test_workers_that_end_at_once_are_started_after_longer_and_longer_pauses(tmp_path, state):
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(PAUSES).replace("READY", state))
    subprocess.run([sys.executable, path], cwd=tmp_path, timeout=SECONDS, check=True, stderr=subprocess.DEVNULL)
    starts = [float(line) for line in (tmp_path / "starts").read_text().splitlines()]
    gaps = [after - before for before, after in itertools.pairwise(starts)]
    # The first worker has caused the first pause.
    assert all(gap >= pause for gap, pause in zip(gaps, (0.2, 0.4, 0.8, 1.6), strict=False)), gaps


def descriptors_of(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


@pytest.mark.thorough
@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="the descriptors of other processes are read from /proc")
def test_replaced_workers_leave_no_descriptors(tmp_path):
    with serving(tmp_path, *COMMAND, app=APP) as (process, port):
        before = children_of(process.pid)
        count = descriptors_of(process.pid)
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: len(now := children_of(process.pid)) == 2 and not now & before)
        assert b"hello" == fetch(port)
        assert count == descriptors_of(process.pid)
        # A worker has nothing of those that were started before it.
        wait_until(lambda: len(set(map(descriptors_of, children_of(process.pid)))) == 1)
        stop(process)


STUBBORN = """
    import logging
    import os
    import signal
    import time

    from vthreads.serve import _workers
    from vthreads.serve._board import Board

    _workers.KILLED_AFTER = 1.5
    logging.basicConfig(format="%(message)s")
    parent = os.getpid()

    # Only SIGKILL ends the first worker. A second one ends the program.
    def work(pipes):
        if os.path.exists("first"):
            os.kill(parent, signal.SIGTERM)
            return 0
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGABRT, signal.SIG_IGN)
        open("first", "w").close()
        os.write(pipes.ready, b"r")
        while True:
            time.sleep(1)

    def announce(what):
        # At the stop again and again: no further signal may give the workers more time.
        if "CAUSE" == "stop" and what != "stopping" and os.path.exists("first"):
            os.kill(parent, signal.SIGTERM)

    watchdog = 1.2 if "CAUSE" == "watchdog" else 0.0
    # One row: no other worker may start before the first one has ended.
    raise SystemExit(_workers.Supervisor(work, 1, 0.1, announce, Board(1), watchdog).run())
"""


@pytest.mark.thorough
@pytest.mark.parametrize("cause", ["watchdog", "stop"])
def test_a_worker_that_ignores_its_end_is_killed_once(tmp_path, cause):
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(STUBBORN).replace("CAUSE", cause))
    command = [sys.executable, path]
    ended = subprocess.run(command, cwd=tmp_path, timeout=SECONDS, check=True, stderr=subprocess.PIPE, text=True)
    assert (1 if cause == "watchdog" else 0) == ended.stderr.count("had no heartbeat")
    assert 1 == ended.stderr.count("did not stop and is killed")
