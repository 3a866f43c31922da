"""Processor time and memory of one process."""

import os
import time
from contextlib import contextmanager

PAGE = os.sysconf("SC_PAGE_SIZE")


def cpu_seconds_of(pid):
    """Processor time (user and system) that another process has used; Linux."""
    # How the kernel numbers the clock of a process: its id, inverted, above three bits that say which of its clocks.
    return time.clock_gettime((~pid << 3) | 2)


def resident_bytes_of(pid):
    """What a process has in memory right now; Linux."""
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * PAGE


class Watch:
    """Measures this process while it is used as a context; once for each figure.

    Attributes:
        figures: by name, microseconds of processor time or KiB for each of the operations.
    """

    def __init__(self, operations):
        self._operations = operations
        self._resident = 0
        self.figures = {}

    @contextmanager
    def __call__(self, figure="cpu"):
        """Measure the processor time of what is inside."""
        self._resident = resident_bytes_of(os.getpid())
        started = time.process_time()
        yield
        self.figures[figure] = (time.process_time() - started) / self._operations * 1e6

    def weigh(self, figure="memory"):
        """Measure how much memory has come since the clock was started last."""
        self.figures[figure] = (resident_bytes_of(os.getpid()) - self._resident) / self._operations / 1024
