"""Empty functions, each on its own thread, in one group: what does it cost to spawn and join one thread?"""

from ..in_process import in_process as measure

SIZE = "threads"
SIZES = (50_000,)
OPERATIONS = None
FIGURES = {"cpu": "µs per thread"}

__all__ = ["FIGURES", "OPERATIONS", "SIZE", "SIZES", "measure"]
