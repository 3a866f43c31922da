"""Lines over TCP between two threads, read by `makefile().readline()`: what do a line and its answer cost?"""

from ..conversation import MESSAGE, converse, tcp_pair
from ..prepared import measured_with

SIZE = "pairs"
SIZES = (1,)
OPERATIONS = 20_000
FIGURES = {"cpu": "µs per round trip"}
PEERS = "standard_queue"

__all__ = ["FIGURES", "OPERATIONS", "PEERS", "SIZE", "SIZES", "measure"]

LINE = MESSAGE + b"\n"


def program(size, operations, watch):
    """Exchange lines, received by a buffered reader for each end."""

    def connect(stack):
        return [(end, stack.enter_context(end.makefile("rb"))) for end in tcp_pair(stack)]

    def ask(end):
        connection, reader = end
        connection.sendall(LINE)
        return reader.readline().rstrip()

    def answer(end):
        connection, reader = end
        connection.sendall(reader.readline())

    return converse(size, operations, watch, connect, ask, answer)


measure = measured_with(program)
