"""CPU time and memory of processes."""

import os
import time
from contextlib import contextmanager

PAGE = os.sysconf("SC_PAGE_SIZE")


def cpu_seconds_of(pid):
    """Return the CPU time (user and system) of another process; Linux."""
    # The kernel's clock id of a process: the inverted process id, shifted by three bits that select the clock.
    return time.clock_gettime((~pid << 3) | 2)


def process_tree(pid):
    """Return a process and all below it; Linux."""
    with open(f"/proc/{pid}/task/{pid}/children") as children:
        return [pid, *(below for child in children.read().split() for below in process_tree(int(child)))]


def cpu_seconds_of_tree(pid):
    """Return the CPU time of a process and of all that it has started and that still run; Linux."""
    return sum(map(cpu_seconds_of, process_tree(pid)))


def resident_bytes_of(pid):
    """Return the resident memory of a process; Linux."""
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * PAGE


class Watch:
    """Measures this process while it is used as a context; once for each figure.

    Attributes:
        figures: by name, microseconds of CPU time or KiB per operation.
    """

    def __init__(self, operations):
        self._operations = operations
        self._resident = 0
        self.figures = {}

    @contextmanager
    def __call__(self, figure="cpu"):
        """Measure the CPU time of the block."""
        self._resident = resident_bytes_of(os.getpid())
        started = time.process_time()
        yield
        self.figures[figure] = (time.process_time() - started) / self._operations * 1e6

    def weigh(self, figure="memory"):
        """Measure the growth of memory since the clock was last started."""
        self.figures[figure] = (resident_bytes_of(os.getpid()) - self._resident) / self._operations / 1024
