"""TCP between two virtual threads that are guests of a loop of uvloop: what do a message and its answer cost?"""

from ..in_process import in_process
from ..tcp_echo import program

SIZE = "pairs"
SIZES = (1,)
OPERATIONS = 20_000
FIGURES = {"cpu": "µs per round trip"}

__all__ = ["FIGURES", "OPERATIONS", "SIZE", "SIZES", "measure"]


def measure(peer, size, operations):
    """Run the program of `tcp_echo` on each poller."""
    return in_process(peer, size, operations, program)
