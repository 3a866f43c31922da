"""WebSocket echo, 100 bytes per message: what does one message cost the server?"""

from ..serve_hello import LOAD
from ..servers import under_load

SIZE = "connections"
SIZES = (500,)
OPERATIONS = 50_000
FIGURES = {"cpu": "µs per message"}


def measure(peer, size, operations):
    """Return the CPU time per message."""
    return under_load(LOAD, peer, size, operations, "websocket")
