"""Blocking code awaits coroutines that are done at once, on the OS thread of uvloop: what does one cost?"""

from ..in_process import in_process as measure

SIZE = "threads"
SIZES = (1,)
OPERATIONS = 20_000
FIGURES = {"cpu": "µs per call"}
HELPERS = ("program",)

__all__ = ["FIGURES", "HELPERS", "OPERATIONS", "SIZE", "SIZES", "measure"]
