"""Sockets on virtual threads: calls that move data, and modes that are set below the socket object."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import socket
import sys
import tempfile
import termios
import threading
import time

import pytest

import vthreads
from vthreads import ThreadGroup, fail_after
from vthreads._calls.net import connecting, readiness

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="the system call under test exists on Linux only")


def spawned(*calls):
    """The results of calls that run at once."""
    return vthreads.gather(*calls)


# --- moving data


def test_many_connections_move_their_data_at_once(virtual):
    def echo(connection):
        with connection:
            while data := connection.recv(4096):
                connection.sendall(data)

    def client(address, number):
        with socket.create_connection(address) as sock, sock.makefile("rwb") as file:
            for turn in range(5):
                file.write(b"%d %d\n" % (number, turn))
                file.flush()
                assert b"%d %d\n" % (number, turn) == file.readline()
        return number

    def root():
        with socket.create_server(("127.0.0.1", 0), backlog=100) as server, ThreadGroup() as group:

            @group.spawn
            def serve():
                while True:
                    connection, _ = server.accept()
                    group.spawn(echo, connection)

            with ThreadGroup() as clients:
                futures = [clients.spawn(client, server.getsockname(), number) for number in range(50)]
            group.cancel()
        return [future.result() for future in futures]

    assert list(range(50)) == virtual(root)


def test_a_large_sendall_arrives_whole(virtual, pair):
    one, two = pair
    data = os.urandom(3_000_000)

    def receive():
        received = bytearray()
        while len(received) < len(data):
            received += two.recv(65_536)
        return bytes(received)

    assert [None, data] == virtual(lambda: spawned(lambda: one.sendall(data), receive))


def test_sendfile_works_while_a_test_of_the_program_replaces_a_function_of_os(virtual, pair, monkeypatch):
    one, two = pair

    def root():
        with tempfile.TemporaryFile() as file, monkeypatch.context() as replaced:
            file.write(b"data")
            file.flush()
            replaced.setattr(os, "fstat", None)
            sent = os.sendfile(one.fileno(), file.fileno(), 0, 4)
        return sent, two.recv(10)

    assert (4, b"data") == virtual(root)


def test_sendfile_sends_all(virtual, pair):
    one, two = pair
    data = os.urandom(1_000_000)

    def receive():
        received = bytearray()
        while len(received) < len(data):
            received += two.recv(65_536)
        return bytes(received)

    def send():
        with tempfile.TemporaryFile() as file:
            file.write(data)
            file.seek(0)
            return one.sendfile(file)

    assert [len(data), data] == virtual(lambda: spawned(send, receive))
    assert os.get_blocking(one.fileno())


@pytest.fixture
def flags_left_alone(monkeypatch):
    """Fail when O_NONBLOCK is changed of a descriptor that other programs may share."""

    def watched(original):
        def change(fd, *blocking):
            assert not os.get_inheritable(fd)
            original(fd, *blocking)

        return change

    monkeypatch.setattr(readiness, "set_blocking", watched(readiness.set_blocking))
    monkeypatch.setattr(connecting, "keep_nonblocking", watched(connecting.keep_nonblocking))


@pytest.mark.usefixtures("flags_left_alone")
def test_a_listener_that_other_programs_share_accepts_in_its_own_mode(virtual):
    def root():
        with socket.create_server(("127.0.0.1", 0)) as server, ThreadGroup() as group:
            server.set_inheritable(True)
            accepting = group.spawn(server.accept)
            time.sleep(1)
            assert not accepting.done()
            address = server.getsockname()
            with socket.create_connection(address):
                connection, _ = accepting.result()
                connection.close()
            with vthreads.move_on_after(1) as scope:
                server.accept()
            return scope.cancelled_caught, vthreads.now()

    assert (True, 2.0) == virtual(root)


@pytest.fixture
def no_flag_changed(monkeypatch):
    """Fail when O_NONBLOCK is changed: processes that share the socket would notice."""

    def change(fd, *blocking):
        pytest.fail(f"the mode of descriptor {fd} was changed")

    monkeypatch.setattr(readiness, "set_blocking", change)


def sent_by_sendfile(sock, data):
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        return sock.sendfile(file)


def spliced(source, target, size):
    moved = 0
    while moved < size:
        moved += os.splice(source, target, size - moved)
    return moved


def sent_by_splice(sock, data):
    reader, writer = os.pipe()
    try:
        return spawned(lambda: os.write(writer, data), lambda: spliced(reader, sock.fileno(), len(data)))[1]
    finally:
        os.close(reader)
        os.close(writer)


def received_by_splice(sock, data):
    reader, writer = os.pipe()
    received = bytearray()

    def take():
        while len(received) < len(data):
            received.extend(os.read(reader, 65_536))

    try:
        spawned(take, lambda: spliced(sock.fileno(), writer, len(data)))
        return bytes(received)
    finally:
        os.close(reader)
        os.close(writer)


def received_by_recv(sock, data):
    received = bytearray()
    while len(received) < len(data):
        received += sock.recv(65_536)
    return bytes(received)


TRANSFERS = {
    "sendfile": (sent_by_sendfile, received_by_recv),
    "splice into a socket": (sent_by_splice, received_by_recv),
    "splice from a socket": (sent_by_sendfile, received_by_splice),
}


@on_linux
@pytest.mark.usefixtures("no_flag_changed")
@pytest.mark.parametrize("inheritable", [False, True], ids=["own", "inheritable"])
@pytest.mark.parametrize(("send", "receive"), TRANSFERS.values(), ids=TRANSFERS.keys())
def test_a_transfer_leaves_a_shared_socket_in_its_mode(virtual, pair, send, receive, inheritable):
    one, two = pair
    one.set_inheritable(inheritable)
    two.set_inheritable(inheritable)
    data = os.urandom(1_000_000)
    assert [len(data), data] == virtual(lambda: spawned(lambda: send(one, data), lambda: receive(two, data)))


@on_linux
@pytest.mark.parametrize("offset", [None, 3], ids=["at the position", "at an offset"])
def test_sendfile_moves_the_position_as_the_original_does(virtual, pair, offset):
    one, two = pair

    def root():
        with tempfile.TemporaryFile() as file:
            file.write(b"0123456789")
            file.flush()
            os.lseek(file.fileno(), 5, os.SEEK_SET)
            sent = os.sendfile(one.fileno(), file.fileno(), offset, 3)
            return sent, two.recv(100), os.lseek(file.fileno(), 0, os.SEEK_CUR)

    plain = root()
    assert plain == virtual(root) == ((3, b"567", 8) if offset is None else (3, b"345", 5))


WRONG_TRANSFERS = {
    "a negative count": lambda out, file: os.sendfile(out, file, 0, -1),
    "a negative offset": lambda out, file: os.sendfile(out, file, -1, 10),
    "no file": lambda out, file: os.sendfile(out, -1, 0, 10),
    "no regular file": lambda out, file: os.sendfile(out, out, 0, 10),
    "a float": lambda out, file: os.sendfile(out, file, 0, 1.5),
}


@on_linux
@pytest.mark.parametrize("call", WRONG_TRANSFERS.values(), ids=WRONG_TRANSFERS.keys())
def test_sendfile_refuses_what_the_original_refuses(virtual, pair, call):
    def failure():
        with tempfile.TemporaryFile() as file, pytest.raises((OSError, TypeError)) as caught:
            call(pair[0].fileno(), file.fileno())
        return caught.type, getattr(caught.value, "errno", None)

    assert failure() == virtual(failure)


def test_sendfile_in_non_blocking_mode_is_no_checkpoint(virtual, pair):
    one, two = pair
    one.setblocking(False)

    def root():
        with tempfile.TemporaryFile() as file, vthreads.move_on_after(0) as scope:
            file.write(b"data")
            file.flush()
            os.sendfile(one.fileno(), file.fileno(), 0, 4)
        return scope.cancelled_caught

    assert not virtual(root)
    assert b"data" == two.recv(10)


def test_datagrams_and_ancillary_data(virtual):
    def root():
        with socket.socket(type=socket.SOCK_DGRAM) as one, socket.socket(type=socket.SOCK_DGRAM) as two:
            one.bind(("127.0.0.1", 0))
            two.bind(("127.0.0.1", 0))
            assert [(b"hello", two.getsockname()), 5] == spawned(
                lambda: one.recvfrom(100), lambda: two.sendto(b"hello", one.getsockname())
            )
            assert [b"world", 5] == spawned(
                lambda: one.recvmsg(100)[0], lambda: two.sendmsg([b"wor", b"ld"], [], 0, one.getsockname())
            )

    virtual(root)


def test_a_short_read_is_followed_by_the_rest_and_the_end(virtual, pair):
    one, two = pair

    def read():
        return [two.recv(100), two.recv(100), two.recv(100)]

    def write():
        one.sendall(b"first")
        vthreads.sleep(1)
        one.sendall(b"second")
        one.shutdown(socket.SHUT_WR)

    assert [b"first", b"second", b""] == virtual(lambda: spawned(read, write))[0]


def test_an_end_that_came_with_the_data_is_seen(virtual, pair):
    one, two = pair

    def root():
        one.sendall(b"all")
        one.close()
        vthreads.sleep(1)
        return two.recv(100), two.recv(100)

    assert (b"all", b"") == virtual(root)


def tcp_pair():
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        return client, server.accept()[0]


def credentials_pair():
    one, two = socket.socketpair()
    two.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    return one, two


def send_at_once(sock, data, flags=0):
    """Send by the C class below: no checkpoint comes before the next one, so one edge reports all."""
    super(socket.socket, sock).send(data, flags)


def send_around_an_urgent_byte(one, _):
    for data, flags in ((b"abc", 0), (b"!", socket.MSG_OOB), (b"def", 0)):
        send_at_once(one, data, flags)


def send_around_an_urgent_byte_that_is_read_first(one, two):
    send_around_an_urgent_byte(one, two)
    assert b"!" == two.recv(1, socket.MSG_OOB)


def send_around_an_urgent_byte_that_an_os_thread_reads_first(one, two):
    read = []

    def read_urgent():
        while not sent:
            time.sleep(0.001)
        read.append(two.recv(1, socket.MSG_OOB))

    sent = False
    # Started before, since to start an OS thread is to park.
    thread = threading.Thread(target=read_urgent)
    thread.start()
    send_around_an_urgent_byte(one, two)
    sent = True
    while thread.is_alive():
        # No checkpoint, so no poll before the urgent byte has been read.
        pass
    assert [b"!"] == read


def send_around_a_descriptor(one, _):
    # As `socket.send_fds` does it.
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, one.fileno().to_bytes(4, sys.byteorder))
    super(socket.socket, one).sendmsg([b"abc"], [rights])
    send_at_once(one, b"def")


# Events that end a read of a stream before the end of its data: (makes a pair of sockets, sends to the second).
STOPS = {
    "urgent": (tcp_pair, send_around_an_urgent_byte),
    "urgent, read first": (tcp_pair, send_around_an_urgent_byte_that_is_read_first),
    "urgent, read first by an OS thread": (tcp_pair, send_around_an_urgent_byte_that_an_os_thread_reads_first),
    "descriptor": (socket.socketpair, send_around_a_descriptor),
    "descriptor and credentials": (credentials_pair, send_around_a_descriptor),
}


@on_linux
@pytest.mark.parametrize("receive", ["recv", "recv_into"])
@pytest.mark.parametrize(("make", "send"), STOPS.values(), ids=STOPS)
def test_what_lies_behind_a_place_where_reads_stop_is_received(virtual, make, send, receive):
    # Issue 10.
    def read(sock, received):
        while len(received) < 6:
            if receive == "recv":
                received += sock.recv(100)
            else:
                buffer = bytearray(100)
                received += buffer[: sock.recv_into(buffer)]

    def root():
        one, two = make()
        received = bytearray()
        with one, two, fail_after(10), ThreadGroup() as group:
            # The first wait makes the socket known to the poller; the second is the one that counts.
            one.send(b"-")
            group.spawn(two.recv, 100)
            vthreads.sleep(1)
            group.spawn(read, two, received)
            vthreads.sleep(1)
            send(one, two)
        return bytes(received)

    assert b"abcdef" == virtual(root)


@on_linux
def test_only_of_plain_tcp_a_short_read_is_taken_for_all_there_was(virtual, pair):
    def root():
        with ThreadGroup() as group:
            for sock in (*pair, *tcp):
                group.spawn(sock.recv, 100)
            descriptors = vthreads.current_thread()._scheduler.descriptors
            known = [descriptors.get(sock.fileno()).short_read_drains for sock in (*pair, *tcp)]
            group.cancel()
        return known

    with contextlib.ExitStack() as stack:
        tcp = [stack.enter_context(sock) for sock in tcp_pair()]
        assert [False, False, True, True] == virtual(root)


# --- modes that are set below the socket object


def by_fcntl(sock):
    fcntl.fcntl(sock, fcntl.F_SETFL, fcntl.fcntl(sock, fcntl.F_GETFL) | os.O_NONBLOCK)


def by_dup(sock):
    with socket.fromfd(sock.fileno(), sock.family, sock.type) as other:
        os.set_blocking(other.fileno(), False)


def by_another_object(sock):
    with socket.fromfd(sock.fileno(), sock.family, sock.type) as other:
        other.setblocking(False)


# Calls that make the open file of a socket non-blocking, and do not change its object.
BELOW = {
    "set_blocking": lambda sock: os.set_blocking(sock.fileno(), False),
    "F_SETFL": by_fcntl,
    "FIONBIO": lambda sock: fcntl.ioctl(sock, termios.FIONBIO, (1).to_bytes(4, sys.byteorder)),
    "dup": by_dup,
    "another object": by_another_object,
}


def fill(sock):
    with contextlib.suppress(BlockingIOError):
        while True:
            sock.send(bytes(100_000), socket.MSG_DONTWAIT)


# Calls that would wait, of a connected socket whose peer neither sends nor receives.
WOULD_WAIT = {
    "recv": lambda sock: sock.recv(10),
    "recv_into": lambda sock: sock.recv_into(bytearray(10)),
    "recv all": lambda sock: sock.recv(10, socket.MSG_WAITALL),
    "recvfrom": lambda sock: sock.recvfrom(10),
    "recvmsg": lambda sock: sock.recvmsg(10),
    "send": lambda sock: sock.send(b"x"),
    "sendall": lambda sock: sock.sendall(b"x"),
    "sendmsg": lambda sock: sock.sendmsg([b"x"]),
}


@pytest.mark.parametrize("call", WOULD_WAIT.values(), ids=WOULD_WAIT)
def test_a_mode_set_by_descriptor_is_the_mode_of_the_call(virtual, pair, call, error_of):
    # Issue 10.
    one, _ = pair

    def root():
        fill(one)
        for make_non_blocking in BELOW.values():
            make_non_blocking(one)
            for _ in range(2):
                with fail_after(1):
                    assert errno.EAGAIN == error_of(call, one).errno
            assert one.gettimeout() is None
            # The next one changes the mode of a socket that has been waited for.
            os.set_blocking(one.fileno(), True)
            with vthreads.move_on_after(1) as scope:
                call(one)
            assert scope.cancelled_caught

    virtual(root)


def test_what_is_there_is_received_at_once_in_a_mode_set_by_descriptor(virtual):
    def root():
        one, two = tcp_pair()
        with one, two, ThreadGroup() as group:
            # After this short read, a call in blocking mode parks without trying.
            group.spawn(two.recv, 100)
            vthreads.sleep(1)
            one.send(b"a")
            vthreads.sleep(1)
            one.send(b"b")
            assert b"b" == two.recv(100)
            os.set_blocking(two.fileno(), False)
            send_at_once(one, b"c")
            select.select([two], [], [])
            assert b"c" == two.recv(100)

    virtual(root)


@pytest.mark.parametrize("waited", [False, True], ids=["at first", "after an accept"])
@pytest.mark.parametrize("make_non_blocking", BELOW.values(), ids=BELOW)
def test_a_listener_made_non_blocking_by_descriptor_is_accepted_from_until_it_refuses(
    virtual, make_non_blocking, waited, error_of
):
    # Issue 10.
    def root():
        with socket.create_server(("127.0.0.1", 0)) as server:
            address = server.getsockname()
            if waited:
                with socket.create_connection(address):
                    server.accept()[0].close()
            make_non_blocking(server)
            with socket.create_connection(address), socket.create_connection(address), fail_after(1):
                for _ in range(2):
                    connection, _ = server.accept()
                    assert connection.getblocking()
                    connection.close()
                assert errno.EAGAIN == error_of(server.accept).errno

    virtual(root)


def test_a_socket_object_around_a_non_blocking_descriptor_refuses_to_wait(virtual, pair, error_of):
    one, _ = pair
    one.setblocking(False)

    def root():
        with socket.socket(fileno=os.dup(one.fileno())) as again, fail_after(1):
            assert again.gettimeout() is None
            assert errno.EAGAIN == error_of(again.recv, 1).errno

    virtual(root)


def test_a_connection_attempt_in_a_mode_set_by_descriptor_is_under_way(virtual, error_of):
    def root():
        with socket.create_server(("127.0.0.1", 0)) as server:
            for call in (socket.socket.connect, socket.socket.connect_ex):
                with socket.socket() as sock:
                    os.set_blocking(sock.fileno(), False)
                    if call is socket.socket.connect:
                        assert errno.EINPROGRESS == error_of(call, sock, server.getsockname()).errno
                    else:
                        assert errno.EINPROGRESS == call(sock, server.getsockname())

    virtual(root)


# --- objects of other classes

ADDRESS = ("127.0.0.1", 9)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("recv", (10,)),
        ("recv_into", (bytearray(10),)),
        ("recvfrom", (10,)),
        ("send", (b"x",)),
        ("sendall", (b"x",)),
        ("sendto", (b"x", ADDRESS)),
        ("connect", (ADDRESS,)),
        ("_accept", ()),
    ],
)
@pytest.mark.parametrize("thing", [None, 5, "socket", {}], ids=repr)
def test_a_call_refuses_what_is_no_socket(virtual, name, arguments, thing):
    # The compiled calls read the fields of the C object, so a wrong type must not get there.
    def root():
        with pytest.raises((TypeError, AttributeError)):
            getattr(socket.socket, name)(thing, *arguments)

    virtual(root)
