"""Calls of TLS sockets."""

import socket

import pytest

from tests.matrix.endings import Operations, nothing_happened, with_every_cause
from tests.tls import client_context, tls_ends, tls_pair

OPERATIONS = Operations()


@OPERATIONS.add
def tls_handshake():
    one, two = socket.socketpair()
    with two:
        # The socket belongs to the TLS socket from the beginning, which closes it when it is cancelled.
        yield lambda: client_context.wrap_socket(one, server_hostname="localhost")
        assert -1 == one.fileno()


@OPERATIONS.add
def tls_read():
    server, client = tls_pair()
    with server, client:
        yield lambda: client.recv(10)
        server.sendall(b"kept")
        assert b"kept" == client.recv(10)


@OPERATIONS.add
def tls_read_over_tcp():
    """A read that parks without an attempt, since the one before it has found the end of what had arrived."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        two, _ = listener.accept()
    server, client = tls_ends(one, two)
    with server, client:
        server.sendall(b"first")
        assert b"first" == client.recv(10)
        yield lambda: client.recv(10)
        server.sendall(b"kept")
        assert b"kept" == client.recv(10)


@OPERATIONS.add
def tls_write():
    server, client = tls_pair()
    with server, client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)

        def fill():
            client.sendall(b"y" * 10_000_000)

        yield fill
        # Half a record is on its way: better no stream than a wrong one.
        with pytest.raises(BrokenPipeError):
            client.send(b"more")


@OPERATIONS.add
def tls_unwrap():
    server, client = tls_pair()
    with server, client:
        yield client.unwrap


@with_every_cause(OPERATIONS)
def test_nothing_happened(name, cause):
    nothing_happened(OPERATIONS[name], cause)
