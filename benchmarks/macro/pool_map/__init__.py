"""`ThreadPoolExecutor().map` of a small function: what does a call cost?"""

from ..prepared import measured_with

SIZE = "calls"
SIZES = (10_000,)
OPERATIONS = None
FIGURES = {"cpu": "µs per call"}
PEERS = "standard_queue"

__all__ = ["FIGURES", "OPERATIONS", "PEERS", "SIZE", "SIZES", "measure"]


def one(number):
    """Return 1."""
    return min(number + 1, 1)


def program(size, _, watch):
    """Map over `size` numbers."""
    from concurrent.futures import ThreadPoolExecutor

    with watch(), ThreadPoolExecutor() as pool:
        return sum(pool.map(one, range(size)))


measure = measured_with(program)
