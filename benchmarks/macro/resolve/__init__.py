"""`socket.getaddrinfo` of localhost: what does a lookup cost?"""

from ..prepared import measured_with, run_threads

SIZE = "threads"
SIZES = (1,)
OPERATIONS = 2_000
FIGURES = {"cpu": "µs per lookup"}
PEERS = "standard_queue"

__all__ = ["FIGURES", "OPERATIONS", "PEERS", "SIZE", "SIZES", "measure"]


def program(size, operations, watch):
    """Look up the name `operations` times, by `size` threads."""
    import socket

    counts = []

    def looks_up():
        counts.append(sum(bool(socket.getaddrinfo("localhost", 80)) for _ in range(operations // size)))

    with watch():
        run_threads([looks_up] * size)
    return sum(counts)


measure = measured_with(program)
