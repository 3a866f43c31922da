"""Threads yield to each other: what does one turn cost?

The main thread is one of them. Between two of its turns, each of the others has had one.
"""

from ..in_process import in_process as measure

SIZE = "threads"
SIZES = (100,)
OPERATIONS = 200_000
FIGURES = {"cpu": "µs per turn"}

__all__ = ["FIGURES", "OPERATIONS", "SIZE", "SIZES", "measure"]
