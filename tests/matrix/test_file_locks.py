"""Waits for a lock of a file."""

import fcntl
import subprocess
import sys
import tempfile

from tests.matrix.endings import Operations, nothing_happened, with_every_cause

OPERATIONS = Operations()


def locking(call):
    def lock():
        with tempfile.NamedTemporaryFile() as file, open(file.name) as other, open(file.name) as third:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield lambda: call(other)
            fcntl.flock(file, fcntl.LOCK_UN)
            fcntl.flock(third, fcntl.LOCK_EX | fcntl.LOCK_NB)

    return lock


OPERATIONS["fcntl.flock"] = locking(lambda file: fcntl.flock(file, fcntl.LOCK_EX))
OPERATIONS["fcntl.flock shared"] = locking(lambda file: fcntl.flock(file, fcntl.LOCK_SH))


@OPERATIONS.add
def lockf():
    holder = "import fcntl, sys; f = open(sys.argv[1], 'r+'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); input()"
    with tempfile.NamedTemporaryFile() as file, open(file.name, "r+") as other:
        arguments = [sys.executable, "-S", "-c", holder, file.name]
        with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            yield lambda: fcntl.lockf(other, fcntl.LOCK_EX)
            process.communicate(b"\n")
        # The process has no lock that this would be one with.
        fcntl.lockf(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


@with_every_cause(OPERATIONS)
def test_nothing_happened(name, cause):
    nothing_happened(OPERATIONS[name], cause)
