"""Idle keep-alive connections to the HTTP servers, after one answer: how much memory does each take?"""

import socket
import time
from contextlib import ExitStack

from .. import cores
from ..servers import server_process
from ..watch import process_tree, resident_bytes_of

PEERS = "serve_hello"
SIZE = "connections"
SIZES = (10_000,)
OPERATIONS = None
FIGURES = {"memory": "KiB per connection"}

REQUEST = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n\r\n"
# Seconds after which a connection without a request is idle for all servers: vthreads ends its thread after one second.
IDLE_AFTER = 2.0


def measure(peer, size, operations):
    """Return the growth of the resident memory of all processes; kernel memory of sockets is not included."""
    with server_process(peer.__name__, cores.MEASURED) as (pid, port), ExitStack() as connected:
        # The first connections cover one-time costs of the server.
        for _ in range(min(size, 50)):
            connected.enter_context(answered_connection(port))
        time.sleep(IDLE_AFTER)
        before = resident(pid)
        for _ in range(size):
            connected.enter_context(answered_connection(port))
        time.sleep(IDLE_AFTER)
        return {"memory": (resident(pid) - before) / operations / 1024}


def resident(pid):
    """Return the memory of a process and of all that it has started."""
    return sum(map(resident_bytes_of, process_tree(pid)))


def answered_connection(port):
    """Connect, as soon as the server listens, and receive one answer."""
    for _ in range(2_000):
        try:
            connection = socket.create_connection(("127.0.0.1", port))
            break
        except ConnectionRefusedError:
            time.sleep(0.01)
    connection.sendall(REQUEST)
    answer = b""
    while not answer.endswith(b"Hello, world!\n"):
        piece = connection.recv(65_536)
        if not piece:
            raise AssertionError(f"the server at port {port} has closed the connection after {answer!r}")
        answer += piece
    return connection
