"""TLS over TCP between two threads of one process, 100 bytes: what do a message and its answer cost?"""

from ..conversation import MESSAGE, converse, tcp_pair
from ..prepared import measured_with

SIZE = "pairs"
SIZES = (1,)
OPERATIONS = 10_000
FIGURES = {"cpu": "µs per round trip"}
PEERS = "standard_queue"

__all__ = ["FIGURES", "OPERATIONS", "PEERS", "SIZE", "SIZES", "measure"]


def program(size, operations, watch):
    """Exchange messages over connections of the standard library's `ssl`."""
    import ssl
    from threading import Thread

    import trustme

    authority = trustme.CA()
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.configure_trust(ours)
    authority.issue_cert("localhost").configure_cert(theirs)

    def connect(stack):
        client, server = tcp_pair(stack)
        ends = []
        handshake = Thread(target=lambda: ends.append(theirs.wrap_socket(server, server_side=True)))
        handshake.start()
        wrapped = ours.wrap_socket(client, server_hostname="localhost")
        handshake.join()
        return stack.enter_context(wrapped), stack.enter_context(ends[0])

    def ask(end):
        end.sendall(MESSAGE)
        return end.recv(1_000)

    return converse(size, operations, watch, connect, ask, lambda end: end.sendall(end.recv(1_000)))


measure = measured_with(program)
