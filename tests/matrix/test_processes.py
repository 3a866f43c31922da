"""Waits for a child process."""

import os
import subprocess
import tempfile

import pytest

from tests.matrix.endings import Operations, nothing_happened, with_every_cause

OPERATIONS = Operations()


def waiting_for_a_child(call):
    def wait():
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
            yield lambda: call(process)
            process.stdin.close()
            assert (process.pid, 0) == os.waitpid(process.pid, 0)
            process.returncode = 0

    return wait


CHILD_WAITS = {
    "os.wait": lambda process: os.wait(),
    "os.waitpid": lambda process: os.waitpid(process.pid, 0),
    "os.waitpid of any child": lambda process: os.waitpid(-1, 0),
    "os.waitpid for stops too": lambda process: os.waitpid(process.pid, os.WUNTRACED),
    "os.wait3": lambda process: os.wait3(0),
    "os.wait4": lambda process: os.wait4(process.pid, 0),
    "os.waitid": lambda process: os.waitid(os.P_PID, process.pid, os.WEXITED),
    "Popen.wait": lambda process: process.wait(),
    "Popen.wait with a timeout": lambda process: process.wait(7200),
}
for name, call in CHILD_WAITS.items():
    OPERATIONS[name] = waiting_for_a_child(call)


@OPERATIONS.add
def communicate():
    gate, go_on = os.pipe()
    with subprocess.Popen(["sh", "-c", "read line; echo kept"], stdin=gate, stdout=subprocess.PIPE) as process:
        yield lambda: process.communicate(timeout=7200)
        os.write(go_on, b"\n")
        assert (b"kept\n", None) == process.communicate(timeout=7200)
    os.close(gate)
    os.close(go_on)


@OPERATIONS.add
def os_system():
    # It cannot be undone, so it is ended: the command is killed.
    yield lambda: os.system("exec sleep 3600")
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@OPERATIONS.add
def subprocess_run():
    # As above: the child is killed.
    yield lambda: subprocess.run(["sleep", "3600"], check=True)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@OPERATIONS.add
def os_popen():
    with tempfile.TemporaryDirectory() as folder:
        fifo = os.path.join(folder, "fifo")
        os.mkfifo(fifo)
        with os.popen(f"exec cat {fifo}") as output:
            yield output.read
            with open(fifo, "w") as written:
                written.write("kept")
            assert "kept" == output.read()


@with_every_cause(OPERATIONS)
def test_nothing_happened(name, cause):
    nothing_happened(OPERATIONS[name], cause)
