"""HTTP servers, an answer of 14 bytes: what does one request cost the server with all its processes?

The peer `vthreads_access_log` writes its access log, as JSON, into a file; the other servers write none.
"""

from pathlib import Path

from ..servers import under_load

SIZE = "keep-alive connections"
SIZES = (64,)
OPERATIONS = 100_000
FIGURES = {"cpu": "µs per request"}
LOAD = Path(__file__).parents[1] / "http_load.c"


def measure(peer, size, operations):
    """Return the CPU time per request."""
    return under_load(LOAD, peer, size, operations, "http")
