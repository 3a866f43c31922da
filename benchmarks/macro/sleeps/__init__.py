"""Threads that all sleep half a second at once, their start and end included: what does each cost?"""

from ..in_process import in_process as measure

SIZE = "threads"
SIZES = (50_000,)
OPERATIONS = None
FIGURES = {"cpu": "µs per thread"}
SECONDS = 0.5

__all__ = ["FIGURES", "OPERATIONS", "SECONDS", "SIZE", "SIZES", "measure"]
