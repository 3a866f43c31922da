"""`select.select` of one socket before each receive, between two threads: what do a message and its answer cost?"""

from ..conversation import MESSAGE, converse
from ..prepared import measured_with

SIZE = "pairs"
SIZES = (1,)
OPERATIONS = 10_000
FIGURES = {"cpu": "µs per round trip"}
PEERS = "standard_queue"

__all__ = ["FIGURES", "OPERATIONS", "PEERS", "SIZE", "SIZES", "measure"]


def program(size, operations, watch):
    """Exchange messages over pairs of Unix sockets; wait by `select` before each `recv`."""
    import select
    import socket

    def connect(stack):
        return [stack.enter_context(end) for end in socket.socketpair()]

    def received(end):
        select.select([end], [], [])
        return end.recv(1_000)

    def ask(end):
        end.send(MESSAGE)
        return received(end)

    return converse(size, operations, watch, connect, ask, lambda end: end.send(received(end)))


measure = measured_with(program)
