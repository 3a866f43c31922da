"""`GET` on many connections at once: what does the client spend on one of them?

The server is at VTHREADS_BENCH_REDIS, or else at redis://127.0.0.1:6379. One key is written, and removed at the end.
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
    """The client's processor time; connecting is not measured."""
    place = urlsplit(SERVER)
    require_answer("Redis", place.hostname, place.port or 6379)
    return in_process(peer, size, operations, SERVER)
