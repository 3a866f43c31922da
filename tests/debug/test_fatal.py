"""The dump on stderr at a fatal error; each case in a separate process."""

from __future__ import annotations

import signal

import pytest

pytestmark = [pytest.mark.real, pytest.mark.unpatched]

DIES = """
import ctypes, os, resource, signal, sys, threading, time
import vthreads.debug
from vthreads import Queue, ThreadGroup, run, sleep
from vthreads.debug import _fatal as fatal
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

def die():
    sleep(0.01)
    HOW

def root():
    queue = Queue()
    with ThreadGroup("mortals") as mortals:
        mortals.spawn(queue.get).thread.name = "bystander"
        mortals.spawn(die).thread.name = "culprit"

vthreads.debug.dump_on_fatal_error()
vthreads.debug.dump_on_fatal_error()
BEFORE
run(root)
"""

WAYS = {
    "a fault in C": ("ctypes.string_at(0)", signal.SIGSEGV),
    "abort": ("os.abort()", signal.SIGABRT),
    "a signal": ("os.kill(os.getpid(), signal.SIGSEGV); time.sleep(60)", signal.SIGSEGV),
    "an OS thread": ("t = threading.Thread(target=ctypes.string_at, args=(0,)); t.start(); t.join()", signal.SIGSEGV),
}


def death(start, how, before="pass"):
    return start(DIES.replace("HOW", how).replace("BEFORE", before)).finish()


def test_the_environment_can_ask_for_it(start):
    program = start(
        """
        import ctypes, resource
        import vthreads
        from vthreads import ThreadGroup, sleep
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        def root():
            with ThreadGroup("mortals") as mortals:
                mortals.spawn(sleep, 600).thread.name = "bystander"
                ctypes.string_at(0)
        vthreads.run(root)
        """,
        VTHREADS_DUMP_ON_FATAL="1",
    )
    status, _, err = program.finish()
    assert -signal.SIGSEGV == status
    assert "thread 'bystander', sleep, " in err.partition("vthreads: a fatal error ends this process")[2]


@pytest.mark.parametrize("way", WAYS)
def test_the_running_thread_and_the_others_are_written_and_the_signal_ends_the_process(start, way):
    how, signalnum = WAYS[way]
    status, out, err = death(start, how)
    assert (-signalnum, "") == (status, out)
    safe, _, dump = err.partition("vthreads: a fatal error ends this process")
    # From C: the stack of the virtual thread that ran, as that of its OS thread.
    assert "most recent call first" in safe
    assert "in die" in safe
    assert "thread 'bystander', Queue.get, parked" in dump
    assert "thread 'culprit', die, " in dump
    assert f"{how.split(';')[0].split(' = ')[0]}" in dump


@pytest.mark.parametrize(
    ("trouble", "told"),
    [
        ("fatal.dump = None", "the virtual threads could not be read: TypeError"),
        ("fatal.PATIENCE = 0.1; fatal.dump = lambda **_: time.sleep(60)", "most recent call first"),
    ],
    ids=["fails", "hangs"],
)
def test_a_dump_that_cannot_be_written_does_not_keep_the_process_alive(start, trouble, told):
    status, _, err = death(start, "ctypes.string_at(0)", trouble)
    assert -signal.SIGSEGV == status
    assert told in err
    assert "bystander" not in err


def test_being_prepared_does_not_hide_a_deadlock_nor_keep_the_process(start):
    status, _, err = death(start, "return")
    assert 1 == status
    assert "DeadlockError" in err
    assert "a fatal error ends" not in err


def test_the_child_of_a_fork_is_prepared_as_well(start):
    status, out, err = death(
        start,
        "child = os.fork()\n    if not child: ctypes.string_at(0)\n    print(os.waitpid(child, 0)[1])\n    os._exit(0)",
        "import warnings; warnings.simplefilter('ignore', DeprecationWarning)",
    )
    assert (0, f"{signal.SIGSEGV:d}\n") == (status, out)
    assert "vthreads: a fatal error ends this process" in err
