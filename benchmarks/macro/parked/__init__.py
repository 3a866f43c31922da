"""Threads that all wait for one event: how much memory does each take, and what do its start and end cost?"""

from pathlib import Path

from ..in_process import in_process
from ..left_out import LeftOut

SIZE = "threads"
SIZES = (1_000_000,)
OPERATIONS = None
FIGURES = {"memory": "KiB per thread", "make": "µs per thread to make", "end": "µs per thread to end"}

# More than any peer except OS threads needs. Figures of a machine that swaps are useless.
KIB_EACH = 12


def measure(peer, size, operations):
    """Return the figures; memory is the growth of the resident set."""
    available = available_kib()
    if size * KIB_EACH > available:
        raise LeftOut(f"{size:,} threads may need {size * KIB_EACH >> 20} GiB, and {available >> 20} are available")
    return in_process(peer, size, operations)


def available_kib():
    """Return the memory that is available without swapping."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1])
    raise LeftOut("/proc/meminfo does not tell how much memory is available")
