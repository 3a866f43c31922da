"""Empty functions, each on a thread of its own, in one group: what does it cost to start one and wait for its end?"""

from ..in_process import in_process as measure

SIZE = "threads"
SIZES = (50_000,)
OPERATIONS = None
FIGURES = {"cpu": "µs per thread"}

__all__ = ["FIGURES", "OPERATIONS", "SIZE", "SIZES", "measure"]
