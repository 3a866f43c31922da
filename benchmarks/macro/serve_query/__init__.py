"""A JSON API, one PostgreSQL query per request, a pool of 16 connections: what does one request cost the server?

The database is that of the workload `postgresql`; its processes are not measured.
"""

from urllib.parse import urlsplit

from ..answering import require_answer
from ..postgresql import SERVER
from ..serve_hello import LOAD
from ..servers import under_load

SIZE = "keep-alive connections"
SIZES = (64,)
OPERATIONS = 10_000
FIGURES = {"cpu": "µs per request"}
HELPERS = ("flask_site", "starlette_site", "database")


def measure(peer, size, operations):
    """Return the CPU time per request."""
    place = urlsplit(SERVER)
    require_answer("PostgreSQL", place.hostname, place.port or 5432)
    return under_load(LOAD, peer, size, operations, "http")
