"""HTTP servers at half of their capacity, requests at random times: how long do answers take?"""

from ..serve_hello import LOAD
from ..servers import loaded

PEERS = "serve_hello"
SIZE = "keep-alive connections"
SIZES = (64,)
OPERATIONS = 20_000
FIGURES = {"p50": "µs, the median", "p99": "µs, the 99th percentile", "rate": "requests a second, half of the capacity"}


def measure(peer, size, operations):
    """Return percentiles of the latency, from the arrival of a request to its answer."""
    with loaded(LOAD, peer, size, operations, "http") as (_, (seconds,)):
        rate = operations / seconds / 2
    with loaded(LOAD, peer, size, operations, "http", rate) as (_, (_, p50, p99)):
        return {"p50": p50, "p99": p99, "rate": rate}
