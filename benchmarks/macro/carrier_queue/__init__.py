"""Two OS threads pass an item back and forth through two queues of size 1: what does a round trip cost?

For vthreads, the two are virtual threads on two carriers. The peers "eventfds" and "locks" pass no item: each shows
what two switches between OS threads cost, with the hand-over of the GIL.
"""

from ..in_process import in_process as measure

SIZE = "pairs"
SIZES = (1,)
OPERATIONS = 20_000
FIGURES = {"cpu": "µs per round trip"}

__all__ = ["FIGURES", "OPERATIONS", "SIZE", "SIZES", "measure"]
