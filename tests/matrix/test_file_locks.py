"""Waits for a lock of a file."""

import fcntl
import os
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


HOLDER = "import fcntl, sys; f = open(sys.argv[1], 'r+'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); input()"


def locking_beside_a_process(call):
    """Locks by `lockf` belong to the process, so another one must hold the lock."""

    def lock():
        with tempfile.NamedTemporaryFile() as file, open(file.name, "r+") as other:
            arguments = [sys.executable, "-S", "-c", HOLDER, file.name]
            with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
                process.stdout.readline()
                yield lambda: call(other)
                process.communicate(b"\n")
            # The process has no lock that this would be one with.
            fcntl.lockf(other, fcntl.LOCK_EX | fcntl.LOCK_NB)

    return lock


OPERATIONS["fcntl.lockf"] = locking_beside_a_process(lambda file: fcntl.lockf(file, fcntl.LOCK_EX))
OPERATIONS["os.lockf"] = locking_beside_a_process(lambda file: os.lockf(file.fileno(), os.F_LOCK, 0))


@with_every_cause(OPERATIONS)
def test_nothing_happened(name, cause):
    nothing_happened(OPERATIONS[name], cause)
