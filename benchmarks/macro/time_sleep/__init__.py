"""Threads yield to each other by `time.sleep(0)`: what does one turn cost?"""

from ..in_process import in_process as measure

SIZE = "threads"
SIZES = (100,)
OPERATIONS = 200_000
FIGURES = {"cpu": "µs per turn"}
HELPERS = ("program",)

__all__ = ["FIGURES", "HELPERS", "OPERATIONS", "SIZE", "SIZES", "measure"]
