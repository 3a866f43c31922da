"""Listeners that several virtual threads, objects or processes share."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading

import pytest

import vthreads
from vthreads import ThreadGroup


@pytest.fixture
def shared():
    """A listener, and another object on the same open file, as another process would have it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.fromfd(server.fileno(), server.family, server.type) as other:
            yield server, other


@pytest.mark.sampled(1)
@pytest.mark.everywhere
def test_a_listener_is_kept_non_blocking_below_and_stays_blocking_above(virtual, shared):
    server, _ = shared

    def root():
        with vthreads.move_on_after(1):
            server.accept()
        assert not os.get_blocking(server.fileno())
        assert (True, None) == (server.getblocking(), server.gettimeout())

    virtual(root)
    vthreads.unpatch()
    try:
        assert os.get_blocking(server.fileno())
    finally:
        vthreads.patch()


def test_another_object_waits_on_a_listener_that_is_kept_non_blocking(virtual, shared):
    server, other = shared

    def root():
        with vthreads.move_on_after(1):
            server.accept()
        with ThreadGroup() as group:
            accepting = group.spawn(other.accept)
            vthreads.sleep(1)
            assert not accepting.done()
            with socket.create_connection(server.getsockname()):
                accepting.result()[0].close()

    virtual(root)


@pytest.mark.parametrize("chosen", [0, 1], ids=["same object", "another object"])
def test_an_os_thread_waits_on_a_listener_that_is_kept_non_blocking(virtual, shared, chosen):
    def root():
        with vthreads.move_on_after(1):
            shared[0].accept()

    virtual(root)
    with socket.socket() as client:
        late = threading.Timer(0.02, client.connect, [shared[0].getsockname()])
        late.start()
        shared[chosen].accept()[0].close()
        late.join()


@pytest.mark.parametrize("timeout", [None, 5.0])
def test_a_listener_that_another_object_has_made_blocking_does_not_block_the_carrier(virtual, shared, timeout):
    server, other = shared
    server.settimeout(timeout)

    def root():
        with ThreadGroup() as group:
            accepting = group.spawn(server.accept)
            vthreads.sleep(1)
            first = socket.create_connection(server.getsockname())
            # The connection is gone when the thread that it has unparked runs, and so is the flag.
            super(socket.socket, other).settimeout(None)
            fd, _ = super(socket.socket, other)._accept()
            os.close(fd)
            vthreads.sleep(1)
            assert not accepting.done()
            with first, socket.create_connection(server.getsockname()):
                accepting.result()[0].close()

    virtual(root)


@pytest.mark.real
def test_workers_that_share_a_listener_do_not_block_in_accept(tmp_path):
    """Each of the forked workers runs on while another one takes the connections."""
    script = tmp_path / "workers.py"
    script.write_text(WORKERS)
    done = subprocess.run([sys.executable, script], check=False, capture_output=True, text=True, timeout=200)
    assert (0, "1000 answered\n") == (done.returncode, done.stdout), done.stderr


WORKERS = """
import faulthandler, os, signal, socket, threading
import vthreads

listener = socket.create_server(("127.0.0.1", 0), backlog=500)
released, release = os.pipe()


def worker():
    def ticks():
        # Ends the worker if its carrier stands still.
        while True:
            faulthandler.dump_traceback_later(5, exit=True)
            vthreads.sleep(0.01)

    with vthreads.ThreadGroup() as group:
        group.spawn(ticks)
        while True:
            connection, _ = listener.accept()
            connection.sendall(b"x")
            connection.close()


workers = []
for _ in range(3):
    pid = os.fork()
    if not pid:
        vthreads.run(worker)
    workers.append(pid)
answered = 0
for _ in range(1000):
    with socket.create_connection(listener.getsockname()) as connection:
        answered += connection.recv(1) == b"x"
print(answered, "answered")
for pid in workers:
    assert (0, 0) == os.waitpid(pid, os.WNOHANG), "a worker has ended"
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
"""

# (family, where a listener or a receiver binds, where its peer binds); an empty name leaves a Unix socket unnamed.
LOOPBACK = ("127.0.0.1", 0)

LOOPBACK_6 = ("::1", 0)

NAMES = [
    pytest.param(socket.AF_INET, LOOPBACK, LOOPBACK, id="IPv4"),
    pytest.param(socket.AF_INET, LOOPBACK, ("127.10.200.199", 0), id="IPv4, numbers of each length"),
    pytest.param(socket.AF_INET6, LOOPBACK_6, LOOPBACK_6, id="IPv6", marks=pytest.mark.ipv6),
    pytest.param(socket.AF_UNIX, "receiver", "", id="Unix, unnamed"),
    pytest.param(socket.AF_UNIX, "receiver", "päer", id="Unix"),
    pytest.param(socket.AF_UNIX, "receiver", "p" * 107, id="Unix, as long as can be"),
    pytest.param(socket.AF_UNIX, "\0vthreads-receiver", b"\0vthreads\0\xff", id="Unix, abstract"),
]


@pytest.fixture
def bound(tmp_path, monkeypatch):
    """Make a socket that is bound."""
    # The names of Unix sockets have little room: they are of this directory.
    monkeypatch.chdir(tmp_path)
    opened = []

    def make(family, kind, name):
        sock = socket.socket(family, kind)
        opened.append(sock)
        if name:
            sock.bind(name)
        return sock

    yield make
    for sock in opened:
        sock.close()


@pytest.mark.parametrize(("family", "name", "name_of_peer"), NAMES)
def test_a_connection_is_accepted_with_the_address_of_its_peer(virtual, bound, family, name, name_of_peer):
    def root():
        listener = bound(family, socket.SOCK_STREAM, name)
        listener.listen()
        peer = bound(family, socket.SOCK_STREAM, name_of_peer)
        with ThreadGroup() as group:
            accepting = group.spawn(listener.accept)
            vthreads.checkpoint()
            peer.connect(listener.getsockname())
        connection, address = accepting.result()
        with connection:
            return address, peer.getsockname(), connection.getpeername(), peer.getpeername() == listener.getsockname()

    address, own, told, is_connected = virtual(root)
    assert own == address == told
    assert is_connected


@pytest.mark.parametrize(("family", "name", "name_of_peer"), NAMES)
def test_a_datagram_is_received_with_the_address_of_its_sender(virtual, bound, family, name, name_of_peer):
    def root():
        receiver = bound(family, socket.SOCK_DGRAM, name)
        sender = bound(family, socket.SOCK_DGRAM, name_of_peer)
        with ThreadGroup() as group:
            receiving = group.spawn(receiver.recvfrom, 10)
            vthreads.checkpoint()
            sender.sendto(b"hello", receiver.getsockname())
        # For an unnamed socket the original returns no address.
        return receiving.result(), (b"hello", sender.getsockname() or None)

    received, expected = virtual(root)
    assert expected == received


@pytest.mark.parametrize(
    ("family", "address"),
    [
        (socket.AF_INET6, ("::1", 9, 0, 0, 0)),
        (socket.AF_INET6, ("::1", 9, 1 << 20)),
        (socket.AF_INET6, ("::1", -1)),
        (socket.AF_INET6, ("::1", 1 << 16)),
        (socket.AF_INET6, ("::1",)),
        (socket.AF_INET6, "::1"),
        (socket.AF_INET6, (1, 9)),
        (socket.AF_INET, ("127.0.0.1", 9, 0)),
        (socket.AF_INET, ("127.0.0.1", -1)),
        (socket.AF_INET, ("127.0.0.1", 1 << 16)),
        (socket.AF_INET, ("127.0.0.1", 1 << 70)),
        (socket.AF_INET, ("127.0.0.1", "9")),
        (socket.AF_INET, ("127.0.0.1",)),
        (socket.AF_INET, "127.0.0.1"),
        (socket.AF_INET, (1, 9)),
    ],
)
def test_an_address_that_is_none_gets_the_error_of_the_original(virtual, bound, family, address):
    sock = bound(family, socket.SOCK_DGRAM, None)

    def failure(call, *args):
        with pytest.raises((TypeError, OverflowError)) as caught:
            call(*args)
        # `connect` is made of the other.
        return type(caught.value), str(caught.value).replace("connect_ex()", "connect()")

    expected = [failure(sock.sendto, b"x", address), failure(sock.connect, address)]
    told = virtual(lambda: [failure(sock.sendto, b"x", address), failure(sock.connect, address)])
    assert expected == told


def test_peeking_takes_nothing(virtual, pair):
    one, two = pair

    def root():
        reader = vthreads.spawn(lambda: (two.recv(100, socket.MSG_PEEK), two.recv(100), two.recv(100)))
        one.sendall(b"data")
        vthreads.sleep(1)
        one.close()
        return reader.result()

    assert (b"data", b"data", b"") == virtual(root)


def test_two_readers_of_one_socket_get_all_datagrams_between_them(virtual):
    one, two = socket.socketpair(type=socket.SOCK_DGRAM)
    with one, two:

        def root():
            readers = [vthreads.spawn(two.recv, 10) for _ in range(3)]
            for number in range(3):
                one.send(b"%d" % number)
            return sorted(reader.result() for reader in readers)

        assert [b"0", b"1", b"2"] == virtual(root)
