"""Dumps on a signal and with a deadlock."""

from __future__ import annotations

import os
import signal

import pytest

import vthreads
import vthreads.debug
from vthreads import DeadlockError, Lock, Queue, ThreadGroup, sleep

pytestmark = pytest.mark.unpatched

# No timeout of pytest: its signal handler counts as something that could still unpark a thread.
no_handler = pytest.mark.timeout(0)


@pytest.fixture
def whole_tree():
    vthreads.debug.dump_on_deadlock()
    yield
    vthreads.debug.dump_on_deadlock(False)


def take_both(first, second):
    with first:
        sleep(1)
        with second:
            pass


def lock_up():
    a, b = Lock(), Lock()
    with ThreadGroup() as group:
        group.spawn(take_both, a, b).thread.name = "one"
        group.spawn(take_both, b, a).thread.name = "two"


def starve():
    Queue().join() or Queue().get()


def notes_of(fn, clock):
    with pytest.raises((DeadlockError, ExceptionGroup)) as caught:
        vthreads.run(fn, clock=clock, patch=False)
    error = caught.value
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, DeadlockError)
    return getattr(error, "__notes__", [])


@no_handler
def test_a_deadlock_over_locks_tells_the_circle(clock):
    (note,) = notes_of(lock_up, clock)
    assert note.startswith("DEADLOCK: these threads wait for each other's locks in a circle\n")
    assert "'one' waits for <Lock locked" in note
    assert "held by 'two'" in note


@no_handler
def test_another_deadlock_has_no_note_unless_the_tree_is_asked_for(clock):
    assert [] == notes_of(starve, clock)


@no_handler
def test_the_tree_is_added_when_asked_for(clock, whole_tree):
    (note,) = notes_of(starve, clock)
    assert (
        "thread 'MainThread' parked for 0 ms: waits in Queue.get() of <Queue size=0 maxsize=0 getters=1 putters=0>"
        in note
    )
    assert "Queue().join() or Queue().get()" in note


# --- in separate processes

SLEEPS = """
import sys, signal
import vthreads, vthreads.debug
from vthreads import ThreadGroup, run, sleep
def root():
    with ThreadGroup("sleepers") as group:
        group.spawn(sleep, 600).thread.name = "sleeper"
        print("ready")
        sys.stdin.readline()
        group.cancel()
"""


@pytest.mark.real
@pytest.mark.parametrize(
    ("call", "environment", "signalnum"),
    [
        ("pass", {"VTHREADS_DUMP_SIGNAL": "SIGUSR1"}, signal.SIGUSR1),
        ("vthreads.debug.dump_on_signal()", {}, signal.SIGUSR1),
        ("vthreads.debug.dump_on_signal(signal.SIGUSR2)", {}, signal.SIGUSR2),
    ],
    ids=["environment", "call", "other signal"],
)
def test_a_signal_brings_a_dump_and_the_program_goes_on(start, call, environment, signalnum):
    program = start(f"{SLEEPS}{call}\nrun(root)\n", **environment)
    assert "ready" == program.line()
    for _ in range(2):
        os.kill(program.pid, signalnum)
        told = [program.process.stderr.readline()]
        while not told[-1].strip().startswith("thread 'sleeper', sleep, "):
            told.append(program.process.stderr.readline())
        assert 1 == sum(line.startswith(f"process {program.pid}, ") for line in told)
    status, out, _ = program.finish()
    assert (0, "") == (status, out)


COMPUTES = """
import threading
import vthreads, vthreads.debug
from vthreads import Lock, ThreadGroup, sleep
from vthreads._core import originals

def wait_for_lock(lock):
    with lock:
        pass

def say_ready():
    # Not by print(), which parks for a pipe: this thread is to be found running.
    originals.write_fd(1, b"ready\\n")

def compute():
    say_ready()
    while not stopped: pass

def root(occupy):
    lock = Lock()
    with ThreadGroup("others") as group, lock:
        sleeper = group.spawn(sleep, 600).thread
        sleeper.name = "sleeper"
        group.spawn(wait_for_lock, lock)
        # A checkpoint may have let others run before they parked, if the machine is slow.
        while sleeper.state.value != "parked" or not lock.statistics().waiting:
            sleep(0)
        occupy()
        group.cancel()

stopped = []
"""


@pytest.mark.real
@pytest.mark.parametrize("patch", [True, False])
def test_a_dump_comes_while_the_carrier_computes(start, patch):
    program = start(
        f"""{COMPUTES}
def stop_when_told():
    originals.read_fd(0, 1)
    stopped.append(True)

threading.Thread(target=stop_when_told, daemon=True).start()
vthreads.debug.dump_on_signal()
vthreads.run(root, compute, patch={patch})
"""
    )
    assert_a_signal_shows(program, "compute")


@pytest.mark.real
def test_a_dump_comes_while_the_carrier_is_pinned(start):
    program = start(
        f"""{COMPUTES}
def block():
    say_ready()
    originals.read_fd(0, 1)

vthreads.run(root, block)
""",
        VTHREADS_DUMP_SIGNAL="SIGUSR1",
    )
    assert_a_signal_shows(program, "block")


def assert_a_signal_shows(program, function):
    """Three times over, a dump comes that shows the root running in `function`, and its lock."""
    assert "ready" == program.line()
    for _ in range(3):
        os.kill(program.pid, signal.SIGUSR1)
        told = ""
        while ", in wait_for_lock\n" not in told:
            told += program.process.stderr.readline()
        assert "thread 'MainThread' running\n" in told
        assert f", in {function}\n" in told
        assert "thread 'sleeper', sleep, parked for" in told
        assert "held by 'MainThread' in root at " in told
    status, out, _ = program.finish()
    assert (0, "") == (status, out)


@pytest.mark.real
def test_the_handler_of_a_dump_does_not_hide_a_deadlock(start):
    program = start(
        """
        from vthreads import Event, run
        run(lambda: Event().wait())
        """,
        VTHREADS_DUMP_SIGNAL="SIGUSR1",
    )
    status, _, err = program.finish()
    assert 1 == status
    assert "DeadlockError" in err


@pytest.mark.real
def test_the_environment_can_ask_for_the_tree_of_a_deadlock(start):
    program = start("import vthreads\nvthreads.run(lambda: vthreads.Event().wait())", VTHREADS_DEBUG="1")
    status, _, err = program.finish()
    assert 1 == status
    assert "thread 'MainThread' parked for" in err


@pytest.mark.real
def test_a_signal_that_does_not_exist_is_refused(start):
    program = start("import vthreads\nvthreads.run(print)", VTHREADS_DUMP_SIGNAL="SIGNOTHING")
    status, out, err = program.finish()
    assert (1, "") == (status, out)
    assert "ValueError: VTHREADS_DUMP_SIGNAL='SIGNOTHING': there is no such signal" in err
