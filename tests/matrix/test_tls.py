"""Calls of TLS sockets."""

import socket
import ssl

import pytest
import trustme

import vthreads
from tests.matrix.endings import Operations, nothing_happened, with_every_cause

OPERATIONS = Operations()


authority = trustme.CA()
server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
authority.issue_cert("localhost").configure_cert(server_context)
client_context = ssl.create_default_context()
authority.configure_trust(client_context)


def tls_pair():
    one, two = socket.socketpair()
    server, client = vthreads.gather(
        lambda: server_context.wrap_socket(one, server_side=True),
        lambda: client_context.wrap_socket(two, server_hostname="localhost"),
    )
    return server, client


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
