"""TCP between two threads of one process, read by `recv`: what do a message and its answer cost?"""

from ..conversation import MESSAGE, converse, tcp_pair
from ..prepared import measured_with

SIZE = "pairs"
SIZES = (1,)
OPERATIONS = 20_000
FIGURES = {"cpu": "µs per round trip"}
PEERS = "standard_queue"

__all__ = ["FIGURES", "OPERATIONS", "PEERS", "SIZE", "SIZES", "measure"]


def program(size, operations, watch):
    """Exchange messages by `sendall` and `recv`."""

    def ask(end):
        end.sendall(MESSAGE)
        return end.recv(1_000)

    return converse(size, operations, watch, tcp_pair, ask, lambda end: end.sendall(end.recv(1_000)))


measure = measured_with(program)
