"""A group of parked threads is cancelled: what does each cost, until all have ended?"""

from ..in_process import in_process as measure

SIZE = "threads"
SIZES = (10_000,)
OPERATIONS = None
FIGURES = {"cpu": "µs per thread"}

__all__ = ["FIGURES", "OPERATIONS", "SIZE", "SIZES", "measure"]
