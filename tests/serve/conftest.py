"""A server on loopback with its clients in one runtime, on a virtual clock: limits of a minute take no time."""

from __future__ import annotations

import select
import socket
import struct

import h11
import pytest

import vthreads
from vthreads import ThreadGroup, serve
from vthreads._core.originals import poll
from vthreads.testing import VirtualClock

# More than the scheduler makes without a look at the poller.
TURNS = 130


def settle():
    """Let everything that can happen now happen, without a step of the clock."""
    for _ in range(TURNS):
        vthreads.checkpoint()


def await_arrival(server, count=1):
    """Block the OS thread until data wait at `count` connections: on a busy machine the kernel delivers them late."""
    query = poll()
    for connection in server._connections:
        query.register(connection.stream.sock.fileno(), select.POLLIN)
    while len(query.poll(1000)) < count:
        pass


class Client:
    """A client with one connection."""

    def __init__(self, address):
        self.sock = socket.create_connection(address)
        # Otherwise the kernel holds a second piece back until the first is acknowledged, by 0.04 s: about as long as a
        # virtual clock waits for anything to arrive.
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def send(self, *parts):
        for part in parts:
            self.sock.sendall(part)
            settle()

    def read(self, size=65536):
        return self.sock.recv(size)

    def rest(self):
        """Everything up to the end of the connection."""
        data = b""
        while piece := self.sock.recv(65536):
            data += piece
        return data

    def read_until(self, end):
        data = b""
        while not data.endswith(end):
            piece = self.sock.recv(1)
            assert piece, data
            data += piece
        return data

    def reset(self):
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def answer(self, method="GET"):
        """The next response, parsed by h11: status, fields, body."""
        connection = h11.Connection(h11.CLIENT)
        connection.send(h11.Request(method=method, target="/", headers=[("Host", "a"), ("Connection", "close")]))
        connection.send(h11.EndOfMessage())
        response, body = None, b""
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                # By single bytes, so that nothing of the next response is taken.
                connection.receive_data(self.sock.recv(1))
            elif isinstance(event, h11.Response):
                response = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                fields = {name.decode(): value.decode() for name, value in response.headers}
                return response.status_code, fields, body


class Site:
    """A running server."""

    def __init__(self, server):
        self.server = server
        self.address = server.addresses[0]

    def client(self):
        return Client(self.address)

    def ask(self, *parts):
        """Send `parts` on a new connection: everything that comes back until its end."""
        with self.client() as client:
            client.send(*parts)
            return client.rest()


def run_with(start, program, **options):
    """Run `program(site)` beside the server that `start(ready=…)` runs; its result."""

    def root():
        with ThreadGroup(on_failure="cancel") as group:
            started = vthreads.Queue()
            group.spawn(start, ready=started.put)
            server = started.get()
            try:
                return program(Site(server))
            finally:
                server.stop()

    return vthreads.run(root, **{"clock": VirtualClock(), **options})


@pytest.fixture
def with_app():
    """Run `program(site)` beside a server of the application `app`."""

    def with_app(app, program, *, is_real=False, **options):
        runtime = {"clock": None} if is_real else {}
        return run_with(lambda ready: serve.wsgi(app, "127.0.0.1", 0, ready=ready, **options), program, **runtime)

    return with_app


@pytest.fixture
def with_handler():
    """Run `program(site)` beside a server of connections."""

    def with_handler(handler, program, **options):
        return run_with(lambda ready: serve.tcp(handler, "127.0.0.1", 0, ready=ready, **options), program)

    return with_handler


@pytest.fixture
def reported(monkeypatch):
    """The failures that were passed to `threading.excepthook`."""
    import threading

    failures = []
    monkeypatch.setattr(threading, "excepthook", lambda details: failures.append(details.exc_value))
    return failures
