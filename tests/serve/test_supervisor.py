"""The parent of workers in its rarer states: deaths during a start, a reload and a stop, and what it reports then.

Each worker says when it begins, and serves when the file `go` or a file named after its number exists.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import pytest

from .test_command import SECONDS

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="workers are forked"),
]

PROGRAM = """
    import itertools
    import logging
    import os
    import signal
    import time

    from vthreads.serve import _workers
    from vthreads.serve._admin import metrics_text
    from vthreads.serve._board import Board

    _workers.SLOW_START = 0.5
    logging.basicConfig(format="%(message)s", level=logging.INFO)

    def say(*words):
        os.write(1, (" ".join(map(str, words)) + "\\n").encode())

    def wait_for(*names):
        while not any(map(os.path.exists, names)):
            time.sleep(0.01)

    def number_of_begins():
        with open("begins", "a+") as file:
            file.write("x")
            return file.tell()

    def work(pipes):
        def stop(*_):
            say("told to stop", number)
            if os.path.exists("asks"):
                os.write(pipes.ready, b"r")

        number = number_of_begins()
        if os.path.exists("stubborn"):
            signal.signal(signal.SIGTERM, stop)
        say("begins", number, os.getpid())
        wait_for("go", str(number))
        os.write(pipes.ready, b"r")
        say("serves", number)
        wait_for("end")
        return 0

    def announce(what):
        if what == "watchdog":
            labels = [line.split('"')[1] for line in metrics_text(board).splitlines() if "connections{" in line]
            what = f"watchdog {' '.join(labels)}"
        say("announces", what)

    board = Board(8)
    raise SystemExit(_workers.Supervisor(work, 2, 5.0, announce, board).run())
"""


class Parent:
    """The program, and all lines that it and its workers have written."""

    def __init__(self, folder, process):
        self.folder = folder
        self.process = process
        self.lines = []

    def read(self):
        line = self.process.stdout.readline()
        assert line, self.lines
        self.lines.append(line.rstrip("\n"))
        return self.lines[-1]

    def read_until(self, begin):
        """The next line that begins like this."""
        while not (line := self.read()).startswith(begin):
            pass
        return line

    def begun(self, number):
        """The pid of a worker that begins."""
        return int(self.read_until(f"begins {number} ").split()[-1])

    def settle(self):
        """Let the parent handle what has happened until now: it has looked twice after that."""
        self.read_until("announces watchdog")
        self.read_until("announces watchdog")

    def make(self, *names):
        for name in names:
            (self.folder / str(name)).touch()

    def oldest(self):
        """The pid of the worker that was started first: the first one that a reload replaces."""
        return min(int(line.split()[-1]) for line in self.lines if line.startswith("begins"))

    def newest(self):
        """That of the last one."""
        return max(int(line.split()[-1]) for line in self.lines if line.startswith("begins"))

    def count(self, begin):
        return sum(line.startswith(begin) for line in self.lines)

    def end(self, status=0):
        self.make("go", "end")
        self.process.send_signal(signal.SIGTERM)
        while line := self.process.stdout.readline():
            self.lines.append(line.rstrip("\n"))
        assert status == self.process.wait(SECONDS)


@pytest.fixture
def parent(tmp_path):
    (tmp_path / "program.py").write_text(textwrap.dedent(PROGRAM))
    command = [sys.executable, tmp_path / "program.py"]
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, cwd=tmp_path, **output) as process:
        try:
            yield Parent(tmp_path, process)
        finally:
            # Workers end as well, when `end` exists.
            (tmp_path / "go").touch()
            (tmp_path / "end").touch()
            process.kill()


def test_ready_is_reported_once_and_when_all_serve(parent):
    parent.make(1)
    first = parent.begun(1)
    parent.settle()
    assert 0 == parent.count("announces ready")
    parent.make(2)
    parent.read_until("announces ready")
    # A worker that replaces a dead one is no news for systemd.
    parent.make(3)
    os.kill(first, signal.SIGKILL)
    parent.read_until("serves 3")
    parent.settle()
    assert 1 == parent.count("announces ready")
    parent.end()


def test_a_worker_that_dies_while_others_start_is_replaced(parent):
    parent.make(1)
    first = parent.begun(1)
    parent.settle()
    os.kill(first, signal.SIGKILL)
    parent.read_until(f"worker {first} was killed by SIGKILL and is replaced")
    parent.begun(3)
    parent.make(2, 3)
    parent.read_until("announces ready")
    parent.end()


def test_a_worker_that_dies_before_it_serves_ends_the_parent(parent):
    first = parent.begun(1)
    os.kill(first, signal.SIGKILL)
    parent.read_until(f"worker {first} was killed by SIGKILL before it served")
    assert 1 == parent.process.wait(SECONDS)


def test_the_place_of_a_dead_worker_is_filled_while_a_reload_waits(parent):
    parent.make(1, 2)
    parent.read_until("announces ready")
    other = parent.newest()
    parent.process.send_signal(signal.SIGHUP)
    # It does not serve, so it must not be counted.
    parent.begun(3)
    os.kill(other, signal.SIGKILL)
    parent.begun(4)
    parent.make("go")
    parent.read_until("announces ready")
    parent.end()


def test_the_death_of_a_worker_that_is_being_replaced_is_reported(parent):
    parent.make(1, 2)
    parent.read_until("announces ready")
    first = parent.oldest()
    parent.process.send_signal(signal.SIGHUP)
    third = parent.begun(3)
    os.kill(first, signal.SIGKILL)
    parent.read_until(f"worker {first} was killed by SIGKILL before its successor {third} served")
    parent.make("go")
    parent.read_until("announces ready")
    parent.end()


def test_a_worker_that_starts_slowly_is_reported_once(parent):
    parent.make(1)
    second = parent.begun(2)
    parent.read_until(f"worker {second} does not serve yet, 0.5 s after its start")
    parent.settle()
    parent.make(2)
    parent.read_until("announces ready")
    parent.end()
    assert 1 == sum("does not serve yet" in line for line in parent.lines)


@pytest.mark.parametrize("cause", ["SIGHUP", "a worker asks for its replacement", "a successor serves"])
def test_after_a_stop_no_reload_begins_or_ends(parent, cause):
    parent.make("stubborn", 1, 2)
    parent.read_until("announces ready")
    if cause == "a successor serves":
        parent.process.send_signal(signal.SIGHUP)
        parent.begun(3)
    elif cause != "SIGHUP":
        parent.make("asks")
    parent.process.send_signal(signal.SIGTERM)
    parent.read_until("announces stopping")
    begun = parent.count("begins")
    if cause == "SIGHUP":
        parent.process.send_signal(signal.SIGHUP)
    elif cause == "a successor serves":
        parent.make(3)
        parent.read_until("serves 3")
    parent.settle()
    assert begun == parent.count("begins")
    after = parent.lines[parent.lines.index("announces stopping") + 1 :]
    assert set() == {"announces ready", "announces reloading"} & set(after)
    parent.end()


def test_the_metrics_name_the_workers(parent):
    parent.make("go")
    parent.read_until("announces ready")
    assert {parent.oldest(), parent.newest()} == set(map(int, parent.read_until("announces watchdog").split()[2:]))
    parent.end()
