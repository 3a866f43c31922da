"""Idle connections to the echo servers, after one answer: how much memory of the server does each take?"""

import socket
from contextlib import ExitStack

from .. import cores
from ..servers import server_process
from ..watch import resident_bytes_of

PEERS = "echo"
SIZE = "connections"
SIZES = (10_000,)
OPERATIONS = None
FIGURES = {"memory": "KiB per connection"}

REQUEST = b"x" * 1_024


def measure(peer, size, operations):
    """Return the growth of the server's resident memory; kernel memory of sockets is not included."""
    with server_process(peer.__name__, cores.MEASURED) as (pid, port), ExitStack() as connected:
        # The first connections cover one-time costs of the server.
        for _ in range(10):
            connected.enter_context(answered_connection(port))
        before = resident_bytes_of(pid)
        for _ in range(size):
            connected.enter_context(answered_connection(port))
        return {"memory": (resident_bytes_of(pid) - before) / operations / 1024}


def answered_connection(port):
    """Connect and receive one answer."""
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall(REQUEST)
    answer = connection.recv(len(REQUEST), socket.MSG_WAITALL)
    if answer != REQUEST:
        raise AssertionError(f"the server at port {port} sent {len(answer)} bytes of {len(REQUEST)}")
    return connection
