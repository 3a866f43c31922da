"""A thread runs coroutines that are done at once on the event loop of another OS thread: what does one cost?"""

from ..in_process import in_process as measure

SIZE = "threads"
SIZES = (1,)
OPERATIONS = 10_000
FIGURES = {"cpu": "µs per call"}
HELPERS = ("loop_thread",)

__all__ = ["FIGURES", "HELPERS", "OPERATIONS", "SIZE", "SIZES", "measure"]
