"""Calls of sockets."""

import _thread
import os
import socket
import tempfile

import pytest

import vthreads
from tests.matrix.endings import Operations, nothing_happened, spawn_parked, with_every_cause
from vthreads._core import originals
from vthreads._core.deadlock import threads_below
from vthreads.testing import VirtualClock

OPERATIONS = Operations()


def full(sock):
    """Fill the send buffer of `sock`."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    timeout = sock.gettimeout()
    sock.setblocking(False)
    try:
        while True:
            sock.send(b"x" * 1024)
    except BlockingIOError:
        sock.settimeout(timeout)


def drained(sock):
    """The data that are left to read, without waiting."""
    sock.setblocking(False)
    received = b""
    try:
        while True:
            received += sock.recv(65536)
    except BlockingIOError:
        return received


def receiving(call, timeout=None, kind=socket.SOCK_STREAM):
    def receive():
        one, two = socket.socketpair(type=kind)
        with one, two:
            one.settimeout(timeout)
            yield lambda: call(one)
            assert timeout == one.gettimeout()
            two.sendall(b"kept")
            assert b"kept" == one.recv(10)

    return receive


RECEIVING = {
    "recv": lambda sock: sock.recv(10),
    "recv_into": lambda sock: sock.recv_into(bytearray(10)),
    "recvfrom": lambda sock: sock.recvfrom(10),
    "recvfrom_into": lambda sock: sock.recvfrom_into(bytearray(10)),
    "recvmsg": lambda sock: sock.recvmsg(10),
    "recvmsg_into": lambda sock: sock.recvmsg_into([bytearray(10)]),
}
for name, call in RECEIVING.items():
    OPERATIONS[f"socket.{name}"] = receiving(call)
    OPERATIONS[f"socket.{name} with a timeout"] = receiving(call, timeout=7200)
    OPERATIONS[f"socket.{name} of datagrams"] = receiving(call, kind=socket.SOCK_DGRAM)


@OPERATIONS.add
def makefile_read():
    one, two = socket.socketpair()
    with one, two, one.makefile("rb") as file:
        yield lambda: file.read(10)
        two.sendall(b"0123456789")
        assert b"0123456789" == file.read(10)


def sending(call, timeout=None):
    def send():
        one, two = socket.socketpair()
        with one, two:
            one.settimeout(timeout)
            full(one)
            yield lambda: call(one)
            assert timeout == one.gettimeout()
            assert b"y" not in drained(two)

    return send


SENDING = {
    "send": lambda sock: sock.send(b"y"),
    "sendall": lambda sock: sock.sendall(b"y"),
    "sendmsg": lambda sock: sock.sendmsg([b"y"]),
}
for name, call in SENDING.items():
    OPERATIONS[f"socket.{name}"] = sending(call)
    OPERATIONS[f"socket.{name} with a timeout"] = sending(call, timeout=7200)


@OPERATIONS.add
def sendall_that_has_sent_a_part():
    one, two = socket.socketpair()
    with one, two:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        sent = []

        def sendall():
            try:
                one.sendall(b"y" * 10_000_000)
            except vthreads.Cancelled as cancelled:
                sent.append(cancelled.bytes_sent)
                raise

        yield sendall
        received = len(drained(two))
        assert not sent or [received] == sent


@OPERATIONS.add
def sendto():
    folder = tempfile.TemporaryDirectory()
    one, two = (socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2))
    with folder, one, two:
        address = os.path.join(folder.name, "two")
        two.bind(address)
        one.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                one.sendto(b"x", address)
        one.setblocking(True)
        yield lambda: one.sendto(b"y", address)
        assert b"y" not in drained(two)


@OPERATIONS.add
def sendfile():
    one, two = socket.socketpair()
    with one, two, tempfile.TemporaryFile() as file:
        file.write(b"y" * 100)
        file.seek(0)
        full(one)
        yield lambda: one.sendfile(file)
        assert b"y" not in drained(two)
        assert os.get_blocking(one.fileno())


def accepting(timeout):
    def accept():
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(timeout)
            yield server.accept
            with socket.create_connection(server.getsockname()):
                server.accept()[0].close()

    return accept


OPERATIONS["socket.accept"] = accepting(None)
OPERATIONS["socket.accept with a timeout"] = accepting(7200)


def connecting(call):
    """A Unix listener whose queue is full never answers."""

    def connect():
        folder = tempfile.TemporaryDirectory()
        server, first, second = (socket.socket(socket.AF_UNIX) for _ in range(3))
        with folder, server, first, second:
            address = os.path.join(folder.name, "server")
            server.bind(address)
            server.listen(0)
            first.connect(address)
            yield lambda: call(second, address)
            with pytest.raises(OSError, match="not connected"):
                second.getpeername()

    return connect


OPERATIONS["socket.connect"] = connecting(lambda sock, address: sock.connect(address))
OPERATIONS["socket.connect_ex"] = connecting(lambda sock, address: sock.connect_ex(address))


def full_tcp_listener():
    """A listener that leaves further connection attempts without an answer, and what fills it."""
    server = socket.create_server(("127.0.0.1", 0), backlog=0)
    fillers = []
    for _ in range(4):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(server.getsockname())
        fillers.append(filler)
    return server, fillers


@OPERATIONS.add
def tcp_connect():
    server, fillers = full_tcp_listener()
    sock = socket.socket()
    yield lambda: sock.connect(server.getsockname())
    for one in (server, sock, *fillers):
        one.close()


@OPERATIONS.add
def create_connection():
    server, fillers = full_tcp_listener()
    yield lambda: socket.create_connection(server.getsockname(), timeout=7200)
    for one in (server, *fillers):
        one.close()


@with_every_cause(OPERATIONS)
def test_nothing_happened(name, cause):
    nothing_happened(OPERATIONS[name], cause)


# --- shut down by another thread at the moment of a cancellation


def in_virtual_thread(fn, *args):
    vthreads.spawn(fn, *args).result()


def in_os_thread(fn, *args):
    """Call `fn` on an OS thread; no virtual thread runs meanwhile."""

    def call():
        fn(*args)
        done.release()

    # The patch would replace a name of this module.
    done = originals.allocate_lock()
    done.acquire()
    _thread.start_new_thread(call, ())
    assert done.acquire(timeout=100)


def cancel(blocked):
    assert blocked.cancel()
    return vthreads.Cancelled


def interrupt(blocked):
    assert blocked.thread.interrupt()
    return vthreads.Interrupted


@pytest.mark.parametrize("name", [*RECEIVING, *SENDING])
@pytest.mark.parametrize("timeout", [None, 7200])
@pytest.mark.parametrize("other", [in_virtual_thread, in_os_thread])
@pytest.mark.parametrize("end", [cancel, interrupt])
@pytest.mark.parametrize("is_first", [True, False], ids=["shut down first", "shut down last"])
def test_a_call_ends_once_if_its_socket_is_shut_down_as_it_is_cancelled(name, timeout, other, end, is_first):
    def blocked_call():
        try:
            ended.append((RECEIVING | SENDING)[name](one))
        except BaseException as error:
            ended.append(type(error))
            raise

    def root():
        scheduler = vthreads.current_thread()._scheduler
        one.settimeout(timeout)
        if name in SENDING:
            full(one)
        with vthreads.ThreadGroup(on_failure="continue") as group:
            blocked = spawn_parked(group, blocked_call)
            if is_first:
                other(one.shutdown, socket.SHUT_RDWR)
            if not ended:
                # A virtual thread that shuts it down first has ended the call before the cancellation.
                expected.append(end(blocked))
            if not is_first:
                other(one.shutdown, socket.SHUT_RDWR)
            blocked.exception() if end is interrupt else vthreads.wait(blocked)
        assert expected == ended or is_first and other is in_virtual_thread and not expected and len(ended) == 1
        # Nothing is left of the wait, and the next call sees the shutdown.
        assert 0 == scheduler.descriptors.waiting == len(scheduler.timers)
        assert [scheduler.root] == list(threads_below(scheduler))
        assert b"" == one.recv(10)

    ended, expected = [], []
    one, two = socket.socketpair()
    with one, two:
        vthreads.run(root, clock=VirtualClock())
