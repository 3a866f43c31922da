"""TCP between two threads of one process, read by `recv_into`: what do a message and its answer cost?"""

from ..conversation import MESSAGE, converse, tcp_pair
from ..prepared import measured_with

SIZE = "pairs"
SIZES = (1,)
OPERATIONS = 20_000
FIGURES = {"cpu": "µs per round trip"}
PEERS = "standard_queue"

__all__ = ["FIGURES", "OPERATIONS", "PEERS", "SIZE", "SIZES", "measure"]


def program(size, operations, watch):
    """Exchange messages, received into one buffer for each end."""

    def connect(stack):
        return [(end, bytearray(1_000)) for end in tcp_pair(stack)]

    def ask(end):
        connection, buffer = end
        connection.sendall(MESSAGE)
        return buffer[: connection.recv_into(buffer)]

    def answer(end):
        connection, buffer = end
        connection.sendall(memoryview(buffer)[: connection.recv_into(buffer)])

    return converse(size, operations, watch, connect, ask, answer)


measure = measured_with(program)
