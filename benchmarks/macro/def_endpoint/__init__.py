"""A plain `def` endpoint of Starlette, on uvloop: what does a request cost beyond that of an `async def` endpoint?"""

from ..in_process import in_process

SIZE = "requests"
SIZES = (1,)
OPERATIONS = 5_000
FIGURES = {"cpu": "µs per request beyond `async def`"}
HELPERS = ("requests_in_turn",)

__all__ = ["FIGURES", "HELPERS", "OPERATIONS", "SIZE", "SIZES", "measure"]


def measure(peer, size, operations):
    """Return the difference of the two costs; there is no server in between, which both would pay."""
    figures = in_process(peer, size, operations)
    return {"cpu": figures["def"] - figures["async def"]}
