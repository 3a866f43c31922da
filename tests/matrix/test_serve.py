"""Waits in a handler of a server: WebSocket."""

import contextlib
import socket

import pytest

import vthreads
from tests.matrix.endings import Operations, nothing_happened, with_every_cause
from vthreads import ThreadGroup, serve

OPERATIONS = Operations()

HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
# Text, 4 bytes, masked with zeros.
KEPT = b"\x81\x84\0\0\0\0kept"
# More than the buffers of both sides.
LARGE = bytes(64 << 20)


@contextlib.contextmanager
def connected():
    """The WebSocket of a handler that waits, and the socket of its client."""
    with ThreadGroup() as group:
        servers, opened, done = vthreads.Queue(), vthreads.Queue(), vthreads.Event()

        def app(environ, start_response):
            opened.put(serve.websocket(environ))
            done.wait()
            return []

        group.spawn(serve.wsgi, app, "127.0.0.1", 0, ready=servers.put)
        server = servers.get()
        with socket.create_connection(server.addresses[0]) as client:
            client.sendall(HANDSHAKE)
            yield opened.get(), client
            done.set()
        server.stop()


@OPERATIONS.add
def websocket_receive():
    with connected() as (opened, client):
        yield opened.receive
        client.sendall(KEPT)
        assert "kept" == opened.receive()


@OPERATIONS.add
def websocket_send():
    with connected() as (opened, _):
        yield lambda: opened.send(LARGE)
        # A part of the frame was sent, so nothing else may follow.
        with pytest.raises(serve.WebSocketClosed):
            opened.send("more")


@with_every_cause(OPERATIONS)
def test_a_wait_ends_at_once_and_loses_nothing(cause, name):
    nothing_happened(OPERATIONS[name], cause)
