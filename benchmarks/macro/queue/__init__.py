"""Pairs of threads hand an item back and forth by two queues of one place: what does a round trip cost?"""

from ..in_process import in_process as measure

SIZE = "pairs"
SIZES = (1,)
OPERATIONS = 20_000
FIGURES = {"cpu": "µs per round trip"}

__all__ = ["FIGURES", "OPERATIONS", "SIZE", "SIZES", "measure"]
