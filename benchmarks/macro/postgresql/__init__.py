"""`select 1` on many connections at once: what does one query cost the client?

The server is at VTHREADS_BENCH_POSTGRESQL, or at 127.0.0.1:5432 with the user postgres and no password. It must accept
the requested number of connections; PostgreSQL's default limit is 100.
"""

import os
from urllib.parse import urlsplit

from ..answering import require_answer
from ..in_process import in_process
from ..left_out import LeftOut

SIZE = "connections"
SIZES = (32, 256)
OPERATIONS = 20_000
FIGURES = {"cpu": "µs per query"}

SERVER = os.environ.get("VTHREADS_BENCH_POSTGRESQL", "postgresql://postgres@127.0.0.1:5432/postgres")


def measure(peer, size, operations):
    """Return the CPU time of the client, without connecting."""
    place = urlsplit(SERVER)
    require_answer("PostgreSQL", place.hostname, place.port or 5432)
    try:
        return in_process(peer, size, operations, SERVER)
    except Exception as failure:
        if "too many clients" in str(failure) or "connection slots" in str(failure):
            raise LeftOut(f"the server does not take {size} connections; raise its max_connections") from failure
        raise
