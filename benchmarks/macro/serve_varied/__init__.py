"""HTTP servers, requests of which no two have the same head: what does one cost the server with all its processes?

Each has another path, query and cookie, so nothing that a server keeps of earlier heads fits the whole of it.
"""

from ..serve_hello import LOAD
from ..servers import under_load

PEERS = "serve_hello"
SIZE = "keep-alive connections"
SIZES = (64,)
OPERATIONS = 100_000
FIGURES = {"cpu": "µs per request"}


def measure(peer, size, operations):
    """Return the CPU time per request."""
    return under_load(LOAD, peer, size, operations, "varied")
