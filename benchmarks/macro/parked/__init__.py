"""Threads that all wait for one event: what does each weigh, and what does it cost to make it and to let it end?"""

from ..in_process import in_process as measure

SIZE = "threads"
SIZES = (1_000_000,)
OPERATIONS = None
FIGURES = {"memory": "KiB per thread", "make": "µs per thread to make", "end": "µs per thread to end"}

__all__ = ["FIGURES", "OPERATIONS", "SIZE", "SIZES", "measure"]
