"""UDP between two threads of one process, 100 bytes: what do a datagram and its answer cost?"""

from ..conversation import MESSAGE, converse
from ..prepared import measured_with

SIZE = "pairs"
SIZES = (1,)
OPERATIONS = 20_000
FIGURES = {"cpu": "µs per round trip"}
PEERS = "standard_queue"

__all__ = ["FIGURES", "OPERATIONS", "PEERS", "SIZE", "SIZES", "measure"]


def program(size, operations, watch):
    """Exchange datagrams on loopback."""
    import socket

    def connect(stack):
        ends = [stack.enter_context(socket.socket(type=socket.SOCK_DGRAM)) for _ in range(2)]
        for end in ends:
            end.bind(("127.0.0.1", 0))
        return [(ends[0], ends[1].getsockname()), (ends[1], None)]

    def ask(end):
        socket_, address = end
        socket_.sendto(MESSAGE, address)
        return socket_.recvfrom(1_000)[0]

    def answer(end):
        message, address = end[0].recvfrom(1_000)
        end[0].sendto(message, address)

    return converse(size, operations, watch, connect, ask, answer)


measure = measured_with(program)
