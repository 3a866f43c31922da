"""`GET` on many connections at once: what does one command cost the client?

The server is at VTHREADS_BENCH_REDIS, or at redis://127.0.0.1:6379. The benchmark writes one key and removes it.
"""

import os
from urllib.parse import urlsplit

from ..answering import require_answer
from ..in_process import in_process

SIZE = "connections"
SIZES = (32,)
OPERATIONS = 20_000
FIGURES = {"cpu": "µs per command"}

SERVER = os.environ.get("VTHREADS_BENCH_REDIS", "redis://127.0.0.1:6379")
KEY, VALUE = f"vthreads-bench-{os.getpid()}", b"x" * 100


def measure(peer, size, operations):
    """Return the CPU time of the client, without connecting."""
    place = urlsplit(SERVER)
    require_answer("Redis", place.hostname, place.port or 6379)
    return in_process(peer, size, operations, SERVER)
