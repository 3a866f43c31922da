"""A Flask application that answers 14 bytes: what does one request cost the server with all its processes?"""

from ..serve_hello import LOAD
from ..servers import under_load

SIZE = "keep-alive connections"
SIZES = (64,)
OPERATIONS = 20_000
FIGURES = {"cpu": "µs per request"}
HELPERS = ("site",)


def measure(peer, size, operations):
    """Return the CPU time per request."""
    return under_load(LOAD, peer, size, operations, "http")
