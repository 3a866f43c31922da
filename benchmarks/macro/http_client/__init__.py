"""1,000 URLs of 20 ms each: what does one URL cost the client?

The figure `requests` is for `requests.get`, with a new connection per URL; `urllib3` is for a pool that keeps
connections. aiohttp is a different library and is compared with both.
"""

from .. import cores
from ..in_process import in_process
from ..servers import server_process

SIZE = "at a time"
SIZES = (100,)
OPERATIONS = 1_000
FIGURES = {"requests": "µs per URL with requests", "urllib3": "µs per URL with urllib3"}
HELPERS = ("server",)


def measure(peer, size, operations):
    """Return the CPU time of the client; the server runs on the other core."""
    with server_process(f"{__name__}.server", cores.LOAD) as (_, port):
        return in_process(peer, size, operations, f"http://127.0.0.1:{port}/")
