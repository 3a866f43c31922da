"""A new process that runs one empty function on one thread: what do the import and the first group cost?"""

import os
import resource
import subprocess
import sys

from .. import cores

SIZE = "processes"
SIZES = (20,)
OPERATIONS = None
FIGURES = {"cpu": "ms per process"}


def measure(peer, size, operations):
    """Run the program of `peer` in new processes, after one that covers the compilation of its modules."""
    cores.pin(cores.MEASURED)
    run(peer)
    before = seconds_of_children()
    for _ in range(size):
        run(peer)
    return {"cpu": (seconds_of_children() - before) * 1e3 / operations}


def run(peer):
    """Start one process; raise if it does not do its work."""
    program = f"done = []\n{peer.PROGRAM}\nprint(len(done))"
    # Keep compiled modules, as an installation does, even where this is switched off.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    if done.stdout != "1\n":
        raise AssertionError(f"{peer.__name__} printed {done.stdout!r}, expected 1")


def seconds_of_children():
    """Return the processor time of the ended child processes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
