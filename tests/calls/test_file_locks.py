"""File locks: waiting parks, and an abandoned wait holds no lock."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import sys
from contextlib import contextmanager

import pytest

import vthreads
from vthreads import ThreadGroup
from vthreads.testing import VirtualClock


def virtual(fn):
    return vthreads.run(fn, clock=VirtualClock())


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "locked"
    path.touch()
    return str(path)


HOLDER = """
import fcntl, sys
file = open(sys.argv[1], "r+")
fcntl.{}(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def held_by_a_process(path, function):
    """Hold the lock in a child, until the block ends or the yielded function is called."""
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", HOLDER.format(function), path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        assert b"held\n" == process.stdout.readline()
        yield process.stdin.close


def whole_file(kind):
    # As struct flock of 64-bit Linux, which is what fcntl() takes for F_SETLK: type, whence, start, length, pid.
    return struct.pack("hhqqi4x", kind, os.SEEK_SET, 0, 0, 0)


LOCKS = {
    "flock": lambda file: fcntl.flock(file, fcntl.LOCK_EX),
    "flock shared": lambda file: fcntl.flock(file.fileno(), fcntl.LOCK_SH),
    "lockf": lambda file: fcntl.lockf(file, fcntl.LOCK_EX),
    "lockf of a part": lambda file: fcntl.lockf(file, fcntl.LOCK_EX, 10, 5),
    "fcntl": lambda file: fcntl.fcntl(file, fcntl.F_SETLKW, whole_file(fcntl.F_WRLCK)),
    "os.lockf": lambda file: os.lockf(file.fileno(), os.F_LOCK, 0),
}


def function_of(name):
    return "flock" if name.startswith("flock") else "lockf"


@pytest.mark.real
@pytest.mark.parametrize("name", LOCKS)
def test_others_run_while_one_waits_for_a_lock_of_another_process(name, path):
    def root():
        with held_by_a_process(path, function_of(name)) as let_go, open(path, "r+") as file, ThreadGroup() as group:
            waiting = group.spawn(LOCKS[name], file)
            assert not waiting.done()
            let_go()
            waiting.result()

    vthreads.run(root)


@pytest.mark.real
@pytest.mark.parametrize("name", LOCKS)
def test_a_wait_that_was_given_up_has_no_lock(name, path):
    def root():
        with held_by_a_process(path, function_of(name)), open(path, "r+") as file:
            with vthreads.move_on_after(10) as scope:
                LOCKS[name](file)
            assert scope.cancelled_caught
        # The next process would have to wait for what is left of the lock.
        with open(path, "r+") as kept_open, held_by_a_process(path, function_of(name)):
            assert kept_open

    virtual(root)


def test_one_process_locks_itself_out_by_flock(path):
    order = []

    def lock(name):
        with open(path) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            order.append(name)
            vthreads.sleep(1)
            fcntl.flock(file, fcntl.LOCK_UN)

    def root():
        with ThreadGroup() as group:
            for name in "abc":
                group.spawn(lock, name)
        return vthreads.now()

    assert 3 <= virtual(root) < 3.5
    assert ["a", "b", "c"] == sorted(order)


def test_shared_locks_do_not_wait_for_each_other(path):
    def root():
        with open(path) as one, open(path) as two:
            fcntl.flock(one, fcntl.LOCK_SH)
            fcntl.flock(two, fcntl.LOCK_SH)
        return vthreads.now()

    assert 0 == virtual(root)


def test_the_forms_that_do_not_wait_are_no_checkpoints(path):
    def root():
        with open(path) as one, open(path, "r+") as two:
            fcntl.flock(one, fcntl.LOCK_EX)
            with vthreads.move_on_after(0) as scope:
                with pytest.raises(BlockingIOError):
                    fcntl.flock(two, fcntl.LOCK_EX | fcntl.LOCK_NB)
                fcntl.lockf(two, fcntl.LOCK_EX | fcntl.LOCK_NB)
                fcntl.lockf(two, fcntl.LOCK_UN)
                os.lockf(two.fileno(), os.F_TLOCK, 0)
                os.lockf(two.fileno(), os.F_TEST, 0)
                os.lockf(two.fileno(), os.F_ULOCK, 0)
                fcntl.fcntl(two, fcntl.F_GETFD)
                fcntl.flock(one, fcntl.LOCK_UN)
            assert not scope.cancelled_caught

    virtual(root)


@pytest.mark.parametrize("name", LOCKS)
def test_in_a_cancelled_scope_a_free_lock_is_not_taken(name, path):
    def root():
        with open(path, "r+") as file, open(path, "r+") as other:
            with vthreads.move_on_after(0) as scope:
                LOCKS[name](file)
            assert scope.cancelled_caught
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)

    virtual(root)


def test_errors_are_those_of_the_original(path):
    def root():
        with open(path) as file:
            with pytest.raises(OSError, match="Bad file descriptor"):
                fcntl.lockf(file, fcntl.LOCK_EX)
            with pytest.raises(ValueError, match="unrecognized lockf argument"):
                fcntl.lockf(file, 0)
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.lockf(file.fileno(), os.F_LOCK, 0)
            with pytest.raises(TypeError):
                os.lockf(file, os.F_LOCK, 0)
        with pytest.raises(ValueError, match="negative"):
            fcntl.flock(-1, fcntl.LOCK_EX)
        with pytest.raises(TypeError):
            fcntl.flock("file", fcntl.LOCK_EX)

    virtual(root)
