"""`vthreads.patch(threads=True)`, and `send` and `recv` of Unix sockets in place of the pipes."""

import socket

import vthreads

from ..conversation import MESSAGE, converse


def run(size, operations, watch):
    vthreads.patch(threads=True)

    def connect(stack):
        return [stack.enter_context(end) for end in socket.socketpair()]

    def ask(end):
        end.send(MESSAGE)
        return end.recv(1_000)

    return converse(size, operations, watch, connect, ask, lambda end: end.send(end.recv(1_000)))
