"""Waiting threads cost no CPU time."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.real

PARKED_ROOT = """
import sys, time
import vthreads

def root():
    vthreads.spawn(time.sleep, 3600)
    print("parked", flush=True)
    vthreads.sleep(3600)

vthreads.run(root)
"""


def switches(pid):
    """How often each OS thread of a process has stopped running of its own accord."""
    return {
        status.parent.name: next(line for line in status.read_text().splitlines() if line.startswith("voluntary"))
        for status in Path(f"/proc/{pid}/task").glob("*/status")
    }


def test_a_process_whose_threads_are_parked_does_not_wake_up():
    with subprocess.Popen([sys.executable, "-c", PARKED_ROOT], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert "parked\n" == process.stdout.readline()
            # The activity after the printed line ends; then the process is idle.
            settle(process)
            before = switches(process.pid)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(2)
            assert before == switches(process.pid)
        finally:
            process.kill()


def settle(process):
    """Wait until the process has stopped for the first time after it said that it will."""
    for _ in range(100):
        before = switches(process.pid)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.1)
        if before == switches(process.pid):
            return
    pytest.fail("the process wakes up all the time")
