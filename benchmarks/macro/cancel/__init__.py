"""Cancel a group of parked threads: what does each thread cost until all have ended?"""

from ..in_process import in_process as measure

SIZE = "threads"
SIZES = (10_000,)
OPERATIONS = None
FIGURES = {"cpu": "µs per thread"}

__all__ = ["FIGURES", "OPERATIONS", "SIZE", "SIZES", "measure"]
