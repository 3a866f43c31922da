"""1,000 URLs that take 20 ms each: what does a client spend on one of them?

The figure `requests` is for `requests.get`, a connection each; `urllib3` is for a pool that keeps its connections.
aiohttp is another library, so it stands beside both.
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
    """The client's processor time; the server has the other core."""
    with server_process(f"{__name__}.server", cores.LOAD) as (_, port):
        return in_process(peer, size, operations, f"http://127.0.0.1:{port}/")
