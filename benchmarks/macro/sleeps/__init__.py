"""Threads that all sleep half a second at the same time: what does each cost, including its start and end?

The same once more in the same process: what does it cost when the memory of the first ones can be used again?
"""

from ..in_process import in_process as measure

SIZE = "threads"
SIZES = (50_000,)
OPERATIONS = None
FIGURES = {"cpu": "µs per thread", "again": "µs per thread, again"}
SECONDS = 0.5

__all__ = ["FIGURES", "OPERATIONS", "SECONDS", "SIZE", "SIZES", "measure"]
