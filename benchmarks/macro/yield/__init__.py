"""Letting the others run: what does one turn cost?

The main thread is one of them. When it has its next turn, all of the others have had one.
"""

from ..in_process import in_process as measure

SIZE = "threads"
SIZES = (100,)
OPERATIONS = 200_000
FIGURES = {"cpu": "µs per turn"}

__all__ = ["FIGURES", "OPERATIONS", "SIZE", "SIZES", "measure"]
