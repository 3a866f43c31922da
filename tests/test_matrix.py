"""Every blocking operation against every cause that can end it early.

For each pair: the call ends at once, nothing has happened, nothing is left behind (descriptor, thread, timer, permit),
and what surfaces is the cause. An operation is a generator: it yields the call that blocks, and then asserts that
whatever the call wanted is still as it was.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import errno
import fcntl
import gc
import multiprocessing
import multiprocessing.connection
import multiprocessing.pool
import os
import queue
import select
import selectors
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import tty
from collections.abc import Callable, Iterator

import pytest
import trustme

import vthreads
from vthreads import ThreadGroup
from vthreads._core.deadlock import threads_below
from vthreads.files import reading as file_reading
from vthreads.net import dns
from vthreads.net.readiness import WRITE, wait_blocking
from vthreads.os_calls import calls_under_way
from vthreads.testing import VirtualClock

Operation = Callable[[], Iterator[Callable[[], object]]]

OPERATIONS: dict[str, Operation] = {}


def operation(function: Operation) -> Operation:
    OPERATIONS[function.__name__] = function
    return function


# --- vthreads' own


@operation
def sleep():
    yield lambda: vthreads.sleep(3600)


@operation
def lock():
    lock = vthreads.Lock()
    lock.acquire()
    yield lock.acquire
    assert lock.locked()
    lock.release()
    assert lock.acquire(blocking=False)


@operation
def rlock():
    lock = vthreads.RLock()
    lock.acquire()
    yield lock.acquire
    lock.release()
    assert vthreads.gather(lambda: lock.acquire(blocking=False)) == [True]


@operation
def condition():
    condition = vthreads.Condition()

    def wait():
        with condition:
            try:
                condition.wait()
            except BaseException:
                assert condition._is_owned() if hasattr(condition, "_is_owned") else True
                raise

    yield wait
    assert condition.acquire(blocking=False)
    condition.notify_all()
    condition.release()
    assert 0 == condition.statistics().waiting


@operation
def event():
    event = vthreads.Event()
    yield event.wait
    assert 0 == event.statistics().waiting


@operation
def semaphore():
    semaphore = vthreads.Semaphore(0)
    yield semaphore.acquire
    semaphore.release()
    assert 1 == semaphore.statistics().value


@operation
def bounded_semaphore():
    semaphore = vthreads.BoundedSemaphore(1)
    semaphore.acquire()
    yield semaphore.acquire
    semaphore.release()
    assert 1 == semaphore.statistics().value


@operation
def barrier():
    barrier = vthreads.Barrier(2)
    yield barrier.wait
    # As in `threading`: a barrier that a party left is broken.
    assert barrier.broken


def getting(kind):
    def get():
        items = kind()
        yield items.get
        items.put("item")
        assert "item" == items.get_nowait()

    return get


def putting(kind):
    def put():
        items = kind(1)
        items.put(1)
        yield lambda: items.put(2)
        assert 1 == items.get_nowait()
        assert items.empty()

    return put


for kind in (vthreads.Queue, vthreads.LifoQueue, vthreads.PriorityQueue):
    OPERATIONS[f"{kind.__name__}.get"] = getting(kind)
    OPERATIONS[f"{kind.__name__}.put"] = putting(kind)
OPERATIONS["SimpleQueue.get"] = getting(vthreads.SimpleQueue)


@operation
def queue_join():
    items = vthreads.Queue()
    items.put(1)
    yield items.join
    items.get_nowait()
    items.task_done()


@operation
def mutex():
    mutex = vthreads.Mutex([])

    def append():
        with mutex.lock() as value:
            value.append(1)

    with mutex.lock() as value:
        yield append
        assert [] == value
    assert mutex.try_lock() is not None


@operation
def rwlock_read():
    lock = vthreads.RwLock("value")

    def read():
        with lock.read():
            raise AssertionError("a writer holds it")

    with lock.write():
        yield read
    with lock.write():
        pass


@operation
def rwlock_write():
    lock = vthreads.RwLock("value")

    def write():
        with lock.write():
            raise AssertionError("a reader holds it")

    with lock.read():
        yield write
        with lock.read():
            pass


@operation
def channel_send():
    channel = vthreads.Channel()
    yield lambda: channel.send("lost?")
    channel.close()
    with pytest.raises(vthreads.ChannelClosed):
        channel.receive()


@operation
def channel_receive():
    channel = vthreads.Channel(1)
    yield channel.receive
    channel.send("kept")
    assert "kept" == channel.receive()


@operation
def receive_any():
    one, two = vthreads.Channel(1), vthreads.Channel(1)
    yield lambda: vthreads.receive_any(one, two)
    one.send(1)
    two.send(2)
    assert [1, 2] == [one.receive(), two.receive()]


@operation
def future_result():
    with ThreadGroup() as group:
        future = group.spawn(vthreads.sleep, 7200)
        yield future.result
        assert not future.done()
        group.cancel()


@operation
def join():
    with ThreadGroup() as group:
        future = group.spawn(vthreads.sleep, 7200)
        yield future.thread.join
        assert future.thread.is_alive()
        group.cancel()


@operation
def wait():
    with ThreadGroup() as group:
        future = group.spawn(vthreads.sleep, 7200)
        foreign = concurrent.futures.Future()
        yield lambda: vthreads.wait([future, foreign])
        assert not future.done()
        group.cancel()


@operation
def as_completed():
    foreign = concurrent.futures.Future()
    yield lambda: list(vthreads.as_completed([foreign]))
    foreign.set_result(1)
    assert [foreign] == list(vthreads.as_completed([foreign]))


@operation
def spawn_into_a_full_group():
    with ThreadGroup(max_concurrency=1) as group:
        group.spawn(vthreads.sleep, 7200)
        yield lambda: group.spawn(pytest.fail, "started all the same")
        assert 1 == len(group)
        group.cancel()


@operation
def group_as_completed():
    with ThreadGroup() as group:
        group.spawn(vthreads.sleep, 7200)
        yield lambda: next(group.as_completed())
        assert 1 == len(group)
        group.cancel()


@operation
def nested_group():
    def parent():
        with ThreadGroup() as inner:
            inner.spawn(vthreads.sleep, 7200)

    yield parent


@operation
def gather():
    yield lambda: vthreads.gather(lambda: vthreads.sleep(3600), lambda: vthreads.sleep(7200))


@operation
def race():
    yield lambda: vthreads.race(lambda: vthreads.sleep(3600), lambda: vthreads.sleep(7200))


@operation
def lazy_map():
    yield lambda: list(vthreads.map(vthreads.sleep, [3600, 7200]))


@operation
def offload_abandoned():
    gate = threading.Event()
    yield lambda: vthreads.offload(gate.wait, on_cancel="abandon")
    gate.set()


# --- the standard library: locks, queues, threads


@operation
def time_sleep():
    yield lambda: time.sleep(3600)


def standard_lock(kind):
    def acquire():
        lock = kind()
        lock.acquire()
        yield lock.acquire
        lock.release()
        assert vthreads.gather(lambda: lock.acquire(blocking=False)) == [True]

    return acquire


OPERATIONS["threading.Lock"] = standard_lock(lambda: threading.Lock())  # looked up when called: patched by then
OPERATIONS["threading.RLock"] = standard_lock(lambda: threading.RLock())  # likewise


@operation
def threading_condition():
    condition = threading.Condition()

    def wait():
        with condition:
            condition.wait()

    yield wait
    with condition:
        assert not condition._waiters


@operation
def threading_event():
    event = threading.Event()
    yield event.wait
    assert not event._cond._waiters


@operation
def threading_semaphore():
    semaphore = threading.Semaphore(0)
    yield semaphore.acquire
    semaphore.release()
    assert semaphore.acquire(blocking=False)


@operation
def threading_barrier():
    barrier = threading.Barrier(2)
    yield barrier.wait
    assert (0, False) == (barrier.n_waiting, barrier.broken)


for kind in (queue.Queue, queue.LifoQueue, queue.PriorityQueue):
    OPERATIONS[f"queue.{kind.__name__}.get"] = getting(kind)
    OPERATIONS[f"queue.{kind.__name__}.put"] = putting(kind)
OPERATIONS["queue.SimpleQueue.get"] = getting(lambda: queue.SimpleQueue())  # likewise


@operation
def standard_queue_join():
    items = queue.Queue()
    items.put(1)
    yield items.join
    items.get_nowait()
    items.task_done()


@operation
def concurrent_future():
    future = concurrent.futures.Future()
    yield future.result
    future.set_result("kept")
    assert "kept" == future.result()


@operation
def futures_wait():
    future = concurrent.futures.Future()
    yield lambda: concurrent.futures.wait([future])
    future.set_result("kept")
    assert ({future}, set()) == concurrent.futures.wait([future])


@operation
def thread_join():
    gate = threading.Event()
    thread = threading.Thread(target=gate.wait)
    thread.start()
    yield thread.join
    assert thread.is_alive()
    gate.set()
    thread.join()


# --- sockets


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
    """What is left to read, without waiting."""
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


@operation
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


@operation
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


@operation
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


@operation
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


@operation
def tcp_connect():
    server, fillers = full_tcp_listener()
    sock = socket.socket()
    yield lambda: sock.connect(server.getsockname())
    for one in (server, sock, *fillers):
        one.close()


@operation
def create_connection():
    server, fillers = full_tcp_listener()
    yield lambda: socket.create_connection(server.getsockname(), timeout=7200)
    for one in (server, *fillers):
        one.close()


# --- TLS

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


@operation
def tls_handshake():
    one, two = socket.socketpair()
    with two:
        # The socket belongs to the TLS socket from the beginning, which closes it when it is cancelled.
        yield lambda: client_context.wrap_socket(one, server_hostname="localhost")
        assert -1 == one.fileno()


@operation
def tls_read():
    server, client = tls_pair()
    with server, client:
        yield lambda: client.recv(10)
        server.sendall(b"kept")
        assert b"kept" == client.recv(10)


@operation
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


@operation
def tls_unwrap():
    server, client = tls_pair()
    with server, client:
        yield client.unwrap


# --- readiness


@operation
def select_select():
    one, two = socket.socketpair()
    with one, two:
        yield lambda: select.select([one], [], [])
        two.send(b"kept")
        assert ([one], [], []) == select.select([one], [], [], 0)


@operation
def selector():
    one, two = socket.socketpair()
    with one, two, selectors.DefaultSelector() as chosen:
        key = chosen.register(one, selectors.EVENT_READ)
        yield chosen.select
        two.send(b"kept")
        assert [(key, selectors.EVENT_READ)] == chosen.select()


@operation
def select_poll():
    one, two = socket.socketpair()
    with one, two:
        poll = select.poll()
        poll.register(one, select.POLLIN)
        yield poll.poll
        two.send(b"kept")
        assert [(one.fileno(), select.POLLIN)] == poll.poll(0)


@operation
def select_epoll():
    one, two = socket.socketpair()
    with one, two, select.epoll() as epoll:
        epoll.register(one, select.EPOLLIN)
        yield epoll.poll
        two.send(b"kept")
        assert [(one.fileno(), select.EPOLLIN)] == epoll.poll(0)


# --- descriptors


def fill(writer):
    os.set_blocking(writer, False)
    # The kernel moves what a tty took on to the other side a little later, and there is room again.
    while select.select([], [writer], [], 0)[1] or os.isatty(writer) and wait_blocking(writer, WRITE, 0.05):
        try:
            os.write(writer, b"x" * 4096)
        except BlockingIOError:
            pass
    os.set_blocking(writer, True)


def emptied_pipe(reader):
    os.set_blocking(reader, False)
    received = b""
    try:
        while piece := os.read(reader, 65536):
            received += piece
    except BlockingIOError:
        pass
    return received


def reading(make, call):
    def read():
        reader, writer = make()
        yield lambda: call(reader)
        assert os.get_blocking(reader)
        os.write(writer, b"12345678")
        assert b"12345678" == os.read(reader, 100)
        os.close(reader)
        os.close(writer)

    return read


def fifo():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "fifo")
        os.mkfifo(path)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        os.set_blocking(reader, True)
        return reader, os.open(path, os.O_WRONLY)


def pseudo_terminal():
    master, slave = os.openpty()
    tty.setraw(slave)
    return slave, master


READING = {
    "read": lambda reader: os.read(reader, 10),
    "readv": lambda reader: os.readv(reader, [bytearray(10)]),
}
for kind, make in {"a pipe": os.pipe, "a FIFO": fifo, "a tty": pseudo_terminal}.items():
    for name, call in READING.items():
        OPERATIONS[f"os.{name} of {kind}"] = reading(make, call)


@operation
def eventfd_read():
    fd = os.eventfd(0)
    yield lambda: os.eventfd_read(fd)
    os.eventfd_write(fd, 7)
    assert 7 == os.eventfd_read(fd)
    os.close(fd)


@operation
def eventfd_write():
    fd = os.eventfd(0)
    os.eventfd_write(fd, 2**64 - 2)
    yield lambda: os.eventfd_write(fd, 1)
    assert 2**64 - 2 == os.eventfd_read(fd)
    os.close(fd)


@operation
def eventfd_write_of_more_than_fits():
    fd = os.eventfd(0)
    os.eventfd_write(fd, 2**64 - 10)
    yield lambda: os.eventfd_write(fd, 100)
    assert 2**64 - 10 == os.eventfd_read(fd)
    os.close(fd)


def writing(make, call):
    def write():
        reader, writer = make()
        fill(writer)
        yield lambda: call(writer)
        assert os.get_blocking(writer)
        assert b"y" not in emptied_pipe(reader)
        os.close(reader)
        os.close(writer)

    return write


WRITING = {
    "write": lambda writer: os.write(writer, b"y"),
    "writev": lambda writer: os.writev(writer, [b"y"]),
}
for kind, make in {"a pipe": os.pipe, "a FIFO": fifo, "a tty": pseudo_terminal}.items():
    for name, call in WRITING.items():
        OPERATIONS[f"os.{name} to {kind}"] = writing(make, call)


# --- files


def reading_a_file(call, mode="rb", buffering=-1):
    def read():
        reader, writer = os.pipe()
        with open(reader, mode, buffering) as file:
            # Not enough for any of the calls.
            if buffering:
                os.write(writer, b"123")
            yield lambda: call(file)
            os.write(writer, b"4\n" if buffering else b"1234\n")
            os.close(writer)
            assert file.read() in (b"1234\n", "1234\n")

    return read


READING_A_FILE = {
    "read": lambda file: file.read(10),
    "read to the end": lambda file: file.read(),
    "readline": lambda file: file.readline(),
    "readinto": lambda file: file.readinto(bytearray(10)),
}
for name, call in READING_A_FILE.items():
    OPERATIONS[f"file.{name}"] = reading_a_file(call)
for name in ("read", "readinto", "read to the end"):
    OPERATIONS[f"file.{name} without a buffer"] = reading_a_file(READING_A_FILE[name], buffering=0)


@operation
def read_1_of_a_file():
    reader, writer = os.pipe()
    with open(reader, "rb") as file:
        yield file.read1
        os.write(writer, b"kept")
        os.close(writer)
        assert b"kept" == file.read()


@operation
def peek_into_a_file():
    reader, writer = os.pipe()
    with open(reader, "rb") as file:
        yield file.peek
        os.write(writer, b"kept")
        os.close(writer)
        assert b"kept" == file.read()


@operation
def line_of_text():
    reader, writer = os.pipe()
    with open(reader) as file:
        yield file.readline
        os.write(writer, b"kept\n")
        os.close(writer)
        assert "kept\n" == file.readline()


def writing_a_file(call, mode="wb", buffering=-1):
    def write():
        reader, writer = os.pipe()
        with open(writer, mode, buffering) as file:
            fill(writer)
            if call is flush:
                file.write(b"kept")
            yield lambda: call(file)
            assert b"y" not in emptied_pipe(reader)
        assert (b"kept" if call is flush else b"") == emptied_pipe(reader)
        os.close(reader)

    return write


def flush(file):
    file.flush()


OPERATIONS["file.write without a buffer"] = writing_a_file(lambda file: file.write(b"y"), buffering=0)
OPERATIONS["file.flush"] = writing_a_file(flush)


@operation
def write_of_more_than_the_buffer_takes():
    reader, writer = os.pipe()
    # What stays in the buffer has room in the pipe.
    with open(writer, "wb", buffering=8_192) as file:
        taken = []

        def write():
            try:
                file.write(b"y" * 1_000_000)
            except vthreads.Cancelled as cancelled:
                taken.append(cancelled.bytes_sent)
                raise

        yield write
        received = len(emptied_pipe(reader))
        file.flush()
        received += len(emptied_pipe(reader))
        assert not taken or [received] == taken
    os.close(reader)


def opening(call):
    def open_fifo():
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "fifo")
            os.mkfifo(path)

            def open_and_see_it_end():
                try:
                    call(path)
                finally:
                    # The OS thread is told to give up, and closes what it opened.
                    while calls_under_way():
                        pass

            yield open_and_see_it_end

    return open_fifo


OPENING = {
    "open to read": lambda path: open(path),  # looked up when called: patched by then
    "open to write": lambda path: open(path, "wb", 0),
    "os.open": lambda path: os.open(path, os.O_RDONLY),
}
for name, call in OPENING.items():
    OPERATIONS[f"{name} a FIFO"] = opening(call)


@operation
def splice():
    (from_this, put), (take, to_this) = os.pipe(), os.pipe()
    yield lambda: os.splice(from_this, to_this, 10)
    os.write(put, b"kept")
    assert 4 == os.splice(from_this, to_this, 10)
    for fd in (from_this, put, take, to_this):
        os.close(fd)


def reading_a_disk(call):
    def read():
        gate = threading.Event()

        def not_cached(fd, buffers, offset, flags=0):
            if flags & os.RWF_NOWAIT:
                raise BlockingIOError(errno.EAGAIN, "not cached")
            gate.wait()
            return original(fd, buffers, offset, flags)

        original = file_reading.original_preadv
        file_reading.original_preadv = not_cached
        with tempfile.TemporaryFile(dir=os.path.dirname(__file__)) as file:
            file.write(b"0123456789")
            file.flush()
            file.seek(5)
            try:
                yield lambda: call(file.fileno())
            finally:
                gate.set()
                file_reading.original_preadv = original
            assert b"56" == os.read(file.fileno(), 2)

    return read


def reading_a_disk_by_open(call):
    def read():
        with tempfile.NamedTemporaryFile(dir=os.path.dirname(__file__)) as made:
            made.write(b"0123456789")
            made.flush()
            with open(made.name, "rb") as file:
                file.seek(5)
                steps = reading_a_disk(lambda _: call(file))()
                yield next(steps)
                assert next(steps, None) is None
                assert b"56789" == file.read()

    return read


for name, call in READING_A_FILE.items():
    OPERATIONS[f"file.{name} of a file on a disk"] = reading_a_disk_by_open(call)


for name, call in {**READING, "pread": lambda fd: os.pread(fd, 1, 0)}.items():
    OPERATIONS[f"os.{name} of a file on a disk"] = reading_a_disk(call)


# --- names

LOOK_UPS = {
    "getaddrinfo": lambda: socket.getaddrinfo("name.test", 80),
    "gethostbyname": lambda: socket.gethostbyname("name.test"),
    "gethostbyname_ex": lambda: socket.gethostbyname_ex("name.test"),
    "gethostbyaddr": lambda: socket.gethostbyaddr("127.0.0.1"),
    "getnameinfo": lambda: socket.getnameinfo(("127.0.0.1", 80), 0),
}


def looking_up(name, call):
    def look_up():
        gate = threading.Event()
        original = getattr(dns, f"original_{name}")
        setattr(dns, f"original_{name}", lambda *_, **__: gate.wait())
        try:
            yield call
        finally:
            gate.set()
            setattr(dns, f"original_{name}", original)

    return look_up


for name, call in LOOK_UPS.items():
    OPERATIONS[f"socket.{name}"] = looking_up(name, call)


# --- processes


def waiting_for_a_child(call):
    def wait():
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
            yield lambda: call(process)
            process.stdin.close()
            assert (process.pid, 0) == os.waitpid(process.pid, 0)
            process.returncode = 0

    return wait


CHILD_WAITS = {
    "os.wait": lambda process: os.wait(),
    "os.waitpid": lambda process: os.waitpid(process.pid, 0),
    "os.waitpid of any child": lambda process: os.waitpid(-1, 0),
    "os.waitpid for stops too": lambda process: os.waitpid(process.pid, os.WUNTRACED),
    "os.wait3": lambda process: os.wait3(0),
    "os.wait4": lambda process: os.wait4(process.pid, 0),
    "os.waitid": lambda process: os.waitid(os.P_PID, process.pid, os.WEXITED),
    "Popen.wait": lambda process: process.wait(),
    "Popen.wait with a timeout": lambda process: process.wait(7200),
}
for name, call in CHILD_WAITS.items():
    OPERATIONS[name] = waiting_for_a_child(call)


@operation
def communicate():
    gate, go_on = os.pipe()
    with subprocess.Popen(["sh", "-c", "read line; echo kept"], stdin=gate, stdout=subprocess.PIPE) as process:
        yield lambda: process.communicate(timeout=7200)
        os.write(go_on, b"\n")
        assert (b"kept\n", None) == process.communicate(timeout=7200)
    os.close(gate)
    os.close(go_on)


@operation
def os_system():
    # What cannot be undone is ended: the command is killed.
    yield lambda: os.system("exec sleep 3600")
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@operation
def subprocess_run():
    # As above: the child is killed.
    yield lambda: subprocess.run(["sleep", "3600"], check=True)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@operation
def os_popen():
    with tempfile.TemporaryDirectory() as folder:
        fifo = os.path.join(folder, "fifo")
        os.mkfifo(fifo)
        with os.popen(f"exec cat {fifo}") as output:
            yield output.read
            with open(fifo, "w") as written:
                written.write("kept")
            assert "kept" == output.read()


@operation
def asyncio_run():
    yield lambda: asyncio.run(asyncio.sleep(3600))
    assert "kept" == asyncio.run(asyncio.sleep(0, "kept"))


# --- multiprocessing

mp = multiprocessing.get_context("fork")


def shared_lock(kind):
    def acquire():
        lock = kind()
        lock.acquire()
        yield lock.acquire
        lock.release()
        assert vthreads.gather(lambda: lock.acquire(block=False)) == [True]

    return acquire


OPERATIONS["multiprocessing.Lock"] = shared_lock(mp.Lock)
OPERATIONS["multiprocessing.RLock"] = shared_lock(mp.RLock)
OPERATIONS["multiprocessing.Semaphore"] = shared_lock(lambda: mp.Semaphore(1))


@operation
def shared_condition():
    condition = mp.Condition()

    def wait():
        with condition:
            try:
                condition.wait()
            finally:
                assert condition._lock._semlock._is_mine()

    yield wait
    with condition:
        # Nobody is counted who would have to be waited for.
        condition.notify_all()


@operation
def shared_event():
    event = mp.Event()
    yield event.wait
    event.set()
    assert event.wait()


@operation
def shared_queue_get():
    items = mp.SimpleQueue()
    yield items.get
    items.put("kept")
    assert "kept" == items.get()
    items.close()


@operation
def shared_queue_put():
    items = mp.Queue(1)
    items.put("first")
    yield lambda: items.put("lost?")
    assert "first" == items.get()
    items.put("second")
    assert "second" == items.get()
    items.close()
    items.join_thread()


@operation
def shared_queue_join():
    items = mp.JoinableQueue()
    items.put(1)
    yield items.join
    items.get()
    items.task_done()
    items.join()
    items.close()
    items.join_thread()


def over_a_connection(call):
    def receive():
        near, far = mp.Pipe()
        with near, far:
            yield lambda: call(near)
            far.send("kept")
            assert "kept" == near.recv()

    return receive


OPERATIONS["Connection.recv"] = over_a_connection(lambda connection: connection.recv())
OPERATIONS["Connection.poll"] = over_a_connection(lambda connection: connection.poll(7200))
OPERATIONS["connection.wait"] = over_a_connection(lambda connection: multiprocessing.connection.wait([connection]))


@operation
def connection_send():
    reader, writer = mp.Pipe(duplex=False)
    with reader, writer:
        os.set_blocking(writer.fileno(), False)
        filled = 0
        try:
            while True:
                filled += os.write(writer.fileno(), b"x" * 4096)
        except BlockingIOError:
            os.set_blocking(writer.fileno(), True)
        yield lambda: writer.send("lost?")
        assert b"x" * filled == os.read(reader.fileno(), 2 * filled)
        assert not reader.poll()


@operation
def process_join():
    gate = mp.Event()
    child = mp.Process(target=gate.wait)
    child.start()
    yield child.join
    gate.set()
    child.join()
    assert 0 == child.exitcode
    child.close()


def wait_at_gate():
    return gates[-1].wait()


# Those of the children by fork, too.
gates = []


def waiting_for_a_pool(make, submit, result):
    def wait():
        gates.append(mp.Event())
        with make() as pool:
            submitted = submit(pool)
            yield lambda: result(submitted)
            gates[-1].set()
            assert result(submitted)
            if isinstance(pool, multiprocessing.pool.Pool):
                pool.close()
                pool.join()
        gates.pop()
        # A pool leaves its pipes to the collector.
        pool = submitted = None
        gc.collect()

    return wait


OPERATIONS["multiprocessing.Pool"] = waiting_for_a_pool(
    lambda: mp.Pool(1), lambda pool: pool.apply_async(wait_at_gate), lambda submitted: submitted.get()
)
OPERATIONS["ProcessPoolExecutor"] = waiting_for_a_pool(
    lambda: concurrent.futures.ProcessPoolExecutor(1, mp),
    lambda pool: pool.submit(wait_at_gate),
    lambda submitted: submitted.result(),
)


# --- standard input


def from_standard_input(call):
    def read():
        reader, writer = os.pipe()
        original = sys.stdin
        sys.stdin = open(reader)
        try:
            yield call
            os.write(writer, b"kept\n")
            assert "kept" == input()
        finally:
            sys.stdin.close()
            sys.stdin = original
            os.close(writer)

    return read


OPERATIONS["input"] = from_standard_input(lambda: input())  # looked up when called: patched by then
OPERATIONS["sys.stdin.readline"] = from_standard_input(lambda: sys.stdin.readline())


# --- file locks


def locking(call):
    def lock():
        with tempfile.NamedTemporaryFile() as file, open(file.name) as other, open(file.name) as third:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield lambda: call(other)
            fcntl.flock(file, fcntl.LOCK_UN)
            fcntl.flock(third, fcntl.LOCK_EX | fcntl.LOCK_NB)

    return lock


OPERATIONS["fcntl.flock"] = locking(lambda file: fcntl.flock(file, fcntl.LOCK_EX))
OPERATIONS["fcntl.flock shared"] = locking(lambda file: fcntl.flock(file, fcntl.LOCK_SH))


@operation
def lockf():
    holder = "import fcntl, sys; f = open(sys.argv[1], 'r+'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); input()"
    with tempfile.NamedTemporaryFile() as file, open(file.name, "r+") as other:
        arguments = [sys.executable, "-S", "-c", holder, file.name]
        with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            yield lambda: fcntl.lockf(other, fcntl.LOCK_EX)
            process.communicate(b"\n")
        # The process has no lock that this would be one with.
        fcntl.lockf(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


# --- signals


def waiting_for_a_signal(call):
    def wait():
        previous = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        yield call
        signal.raise_signal(signal.SIGUSR1)
        assert signal.SIGUSR1 == signal.sigtimedwait([signal.SIGUSR1], 0).si_signo
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)

    return wait


SIGNAL_WAITS = {
    "sigwait": lambda: signal.sigwait([signal.SIGUSR1]),
    "sigwaitinfo": lambda: signal.sigwaitinfo([signal.SIGUSR1]),
    "sigtimedwait": lambda: signal.sigtimedwait([signal.SIGUSR1], 7200),
}
for name, call in SIGNAL_WAITS.items():
    OPERATIONS[f"signal.{name}"] = waiting_for_a_signal(call)


@operation
def sigwait_for_what_is_not_blocked():
    handler = signal.getsignal(signal.SIGUSR1)
    yield lambda: signal.sigwait([signal.SIGUSR1])
    assert handler is signal.getsignal(signal.SIGUSR1)


@operation
def signal_pause():
    yield signal.pause


# --- causes: each makes `call` block in a virtual thread and ends it


class SiblingError(Exception):
    pass


def fail(error):
    raise error


def sibling_failure(call):
    error = SiblingError()
    with pytest.raises(ExceptionGroup) as caught:
        with ThreadGroup() as group:
            blocked = spawn_parked(group, call)
            group.spawn(fail, error)
    assert (error,) == caught.value.exceptions
    assert blocked.cancelled()


def deadline(call):
    start = vthreads.now()
    with pytest.raises(TimeoutError):
        with vthreads.fail_after(1), ThreadGroup() as group:
            spawn_parked(group, call)
    return start + 1


def future_cancel(call):
    with ThreadGroup() as group:
        blocked = spawn_parked(group, call)
        assert blocked.cancel()
    assert blocked.cancelled()


def interrupt(call):
    error = vthreads.Interrupted()
    with ThreadGroup(on_failure="continue") as group:
        blocked = spawn_parked(group, call)
        assert blocked.thread.interrupt(error)
        raised = blocked.exception()
    # A group that is interrupted while it waits for its members raises that in an exception group.
    assert error in getattr(raised, "exceptions", (raised,))


def ctrl_c(call):
    with pytest.raises(KeyboardInterrupt):
        with ThreadGroup() as group:
            blocked = spawn_parked(group, call)
            group.spawn(signal.raise_signal, signal.SIGINT)
    assert blocked.cancelled()


def spawn_parked(group, call):
    blocked = group.spawn(call)
    assert "parked" == blocked.thread.state.value
    return blocked


CAUSES = [sibling_failure, deadline, future_cancel, interrupt, ctrl_c]


def open_descriptors():
    return len(os.listdir("/proc/self/fd"))


# From 3.12 on, if there are idle OS threads of the offload pool.
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.__name__)
@pytest.mark.parametrize("name", OPERATIONS)
def test_nothing_happened(name, cause):
    def root():
        scheduler = vthreads.current_thread().scheduler
        before, start = open_descriptors(), vthreads.now()
        steps = OPERATIONS[name]()
        call = next(steps)
        prepared = open_descriptors()
        end = cause(call) or start
        # Whatever the call opened is closed; the handshake has also closed what it was given.
        assert open_descriptors() <= prepared
        # At once: not even the time for cleanup has passed.
        assert end == vthreads.now()
        assert next(steps, None) is None
        assert open_descriptors() == before
        assert 0 == scheduler.descriptors.waiting
        assert 0 == len(scheduler.timers)
        assert [scheduler.root] == list(threads_below(scheduler))

    vthreads.run(root, clock=VirtualClock())
