"""pyOpenSSL: client and server are virtual threads of one carrier, and neither may block it."""

import os
import socket

import pytest
import trustme

import vthreads
from vthreads.errors import Cancelled

SSL = pytest.importorskip("OpenSSL.SSL", reason="pyOpenSSL is not installed")

# More than the buffers of both sockets hold.
LONG = bytes(range(256)) * (16 << 10)


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def contexts(authority):
    """Of the client and of the server."""
    client, server = SSL.Context(SSL.TLS_METHOD), SSL.Context(SSL.TLS_METHOD)
    authority.configure_trust(client)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    return client, server


def connected(contexts):
    """A client and a server, both without timeout, before the handshake."""
    ends = socket.socketpair()
    client, server = (SSL.Connection(context, end) for context, end in zip(contexts, ends, strict=True))
    client.set_connect_state()
    server.set_accept_state()
    return client, server


def close(*connections):
    for connection in connections:
        connection.close()


def read_all(connection, length):
    received = bytearray()
    while len(received) < length:
        received += connection.recv(1 << 16)
    return bytes(received)


def test_handshake_data_and_goodbye_pass_between_two_threads_of_one_carrier(contexts):
    def main():
        client, server = connected(contexts)

        def serve():
            server.do_handshake()
            server.sendall(read_all(server, len(LONG)))
            with pytest.raises(SSL.ZeroReturnError):
                server.recv(1)
            server.shutdown()

        with vthreads.fail_after(20), vthreads.ThreadGroup() as group:
            group.spawn(serve)
            client.do_handshake()
            assert client.sendall(LONG) == len(LONG)
            assert read_all(client, len(LONG)) == LONG
            while not client.shutdown():
                pass
        assert os.get_blocking(client.fileno())
        close(client, server)

    vthreads.run(main)


@pytest.mark.parametrize("reading", ["recv", "recv_into", "read"])
def test_a_read_that_was_cancelled_has_lost_nothing(contexts, reading):
    def main():
        client, server = connected(contexts)
        with vthreads.fail_after(20):
            shaken = vthreads.spawn(server.do_handshake)
            client.do_handshake()
            shaken.result()
            with vthreads.move_on_after(0.01) as waited:
                getattr(client, reading)(bytearray(5) if reading == "recv_into" else 5)
            assert waited.cancelled_caught
            server.send(b"hello")
            with vthreads.move_on_after(0) as at_once:
                client.recv(5)
            assert at_once.cancelled_caught
            assert client.recv(5) == b"hello"
        close(client, server)

    vthreads.run(main)


def test_a_send_that_was_cancelled_tells_how_much_was_sent(contexts):
    def main():
        client, server = connected(contexts)
        with vthreads.fail_after(20):
            shaken = vthreads.spawn(server.do_handshake)
            client.do_handshake()
            shaken.result()
            with vthreads.move_on_after(0.01), pytest.raises(Cancelled) as cancelled:
                client.sendall(LONG)
            sent = cancelled.value.bytes_sent
            assert 0 < sent < len(LONG)
            assert read_all(server, sent) == LONG[:sent]
        close(client, server)

    vthreads.run(main)


def test_a_socket_with_a_timeout_is_waited_for_by_the_caller(contexts):
    def main():
        client, server = connected(contexts)
        client.settimeout(5)
        with pytest.raises(SSL.WantReadError):
            client.do_handshake()
        close(client, server)

    vthreads.run(main)
