"""A run that must leave nothing behind, and a proxy that can be cut: a server that goes away is the proxy before it.

`tests/servers.py` has the mark for tests that need a server.
"""

import selectors
import socket
import threading
import uuid
from contextlib import closing, contextmanager

import pytest

import vthreads
from vthreads._core.deadlock import threads_below

from ..servers import PORTS


def pytest_terminal_summary(terminalreporter):
    skipped = [report for report in terminalreporter.getreports("skipped") if "tests/drivers/" in report.nodeid]
    if skipped:
        terminalreporter.write_sep("-", "drivers")
        terminalreporter.write_line(f"{len(skipped)} skipped for want of a driver or a server")


@pytest.fixture(autouse=True)
def os_threads_have_ended(nothing_left_in_the_process):
    """Wait for the OS threads of servers, pools and monitors: most of them end soon, but not at once."""
    before = set(threading.enumerate())
    yield
    for os_thread in set(threading.enumerate()) - before:
        if not os_thread.name.startswith("vthreads-offload-"):
            os_thread.join(20)


@pytest.fixture
def run():
    """Call a function as root on the real clock, patched; afterwards no virtual thread may be left."""

    def run(fn, /, *args):
        def root():
            result = fn(*args)
            scheduler = vthreads.current_thread()._scheduler
            assert [] == [thread for thread in threads_below(scheduler) if thread is not scheduler.root]
            return result

        return vthreads.run(root)

    return run


@pytest.fixture
def new_database():
    """The URL of a new PostgreSQL database: tests that run at the same time do not see the rows of each other."""
    import psycopg

    name = f"vthreads_{uuid.uuid4().hex}"
    with psycopg.connect("host=127.0.0.1 user=postgres dbname=postgres", autocommit=True) as connection:
        connection.execute(f'create database "{name}"')
        yield f"postgresql://postgres@127.0.0.1/{name}"
        connection.execute(f'drop database "{name}" with (force)')


class Proxy:
    """Pass connections on to a port of this machine, on an OS thread, until they are cut."""

    def __init__(self, port):
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ, None)
        self._order, self._orders = socket.socketpair()
        self._selector.register(self._orders, selectors.EVENT_READ, None)
        self._obeyed = threading.Semaphore(0)
        self._os_thread = threading.Thread(target=self._serve, name="proxy")
        self._os_thread.start()

    def cut(self):
        """The server goes away: its connections break, and new ones are refused."""
        self._say(b"c")

    def close(self):
        self._say(b"q")
        self._os_thread.join()
        self._order.close()

    def _say(self, order):
        self._order.sendall(order)
        self._obeyed.acquire()

    def _serve(self):
        order = b""
        while order != b"q":
            for key, _ in self._selector.select():
                if key.fileobj is self._orders:
                    order = self._orders.recv(1)
                    self._break_all()
                    self._obeyed.release()
                    break
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj.fileno() >= 0:
                    self._pass_on(key.fileobj, key.data)
        self._selector.close()
        self._orders.close()

    def _accept(self):
        here, _ = self._listener.accept()
        there = socket.create_connection(self._target)
        self._selector.register(here, selectors.EVENT_READ, there)
        self._selector.register(there, selectors.EVENT_READ, here)

    def _pass_on(self, source, sink):
        try:
            data = source.recv(65536)
            sink.sendall(data)
        except OSError:
            data = b""
        if not data:
            self._break(source)
            self._break(sink)

    def _break_all(self):
        for key in list(self._selector.get_map().values()):
            if key.fileobj is not self._orders:
                self._break(key.fileobj)

    def _break(self, sock):
        if sock.fileno() >= 0:
            self._selector.unregister(sock)
            sock.close()


@pytest.fixture
def proxy():
    """Make a proxy to a server or port: `with proxy("Redis") as server:`, with `port` and `cut()`."""

    @contextmanager
    def make(server):
        with closing(Proxy(PORTS.get(server, server))) as made:
            yield made

    return make
