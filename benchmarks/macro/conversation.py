"""Two threads of one process talk, in turns: one asks and waits for the answer, the other waits and answers."""

from contextlib import ExitStack

from .prepared import run_threads

MESSAGE = b"m" * 100


def converse(size, operations, watch, connect, ask, answer):
    """Let `size` pairs of threads exchange `operations` messages and answers; return the number of answers.

    Args:
        connect: called with an ExitStack that closes what it opens; returns the two ends of a pair.
        ask: called with the first end; sends a message, and returns the answer.
        answer: called with the other end; receives a message, and answers with the same bytes.
    """
    counts = []

    def asks(end):
        counts.append(sum(ask(end) == MESSAGE for _ in range(operations // size)))

    def answers(end):
        for _ in range(operations // size):
            answer(end)

    with ExitStack() as stack:
        ends = [connect(stack) for _ in range(size)]
        functions = [lambda end=end: asks(end) for end, _ in ends] + [lambda end=end: answers(end) for _, end in ends]
        with watch():
            run_threads(functions)
    return sum(counts)


def tcp_pair(stack):
    """Return two connected TCP sockets on loopback."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = stack.enter_context(socket.create_connection(listener.getsockname()))
        server = stack.enter_context(listener.accept()[0])
    for end in client, server:
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client, server
