"""Timeouts and modes of sockets, and connecting."""

from __future__ import annotations

import _socket
import errno
import os
import socket
import sys

import pytest

import vthreads
from vthreads import ThreadGroup

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="the system call under test exists on Linux only")


# --- timeouts and modes


def test_a_timeout_is_raised_at_its_time(virtual, pair):
    one, _ = pair
    one.settimeout(5)

    def root():
        with pytest.raises(TimeoutError, match="timed out"):
            one.recv(10)
        return vthreads.now()

    assert 5.0 == virtual(root)


@pytest.mark.parametrize("timeout", [None, 0.0, 2.5])
def test_the_timeout_that_was_set_is_the_one_that_is_told(virtual, pair, timeout):
    one, two = pair

    def root():
        one.settimeout(timeout)
        two.send(b"x")
        vthreads.sleep(1)
        assert b"x" == one.recv(10)
        return one.gettimeout(), one.timeout, one.getblocking()

    assert (timeout, timeout, timeout != 0) == virtual(root)


@pytest.mark.sampled(1)
@pytest.mark.everywhere
def test_a_timeout_survives_the_end_of_the_patch(virtual, pair):
    one, _ = pair
    one.settimeout(0.01)

    def root():
        with pytest.raises(TimeoutError):
            one.recv(10)

    virtual(root)
    vthreads.unpatch()
    try:
        assert 0.01 == one.gettimeout()
        with pytest.raises(TimeoutError):
            one.recv(10)
    finally:
        vthreads.patch()


def test_a_blocking_socket_stays_blocking_for_others(virtual, pair):
    one, two = pair

    def root():
        reader = vthreads.spawn(one.recv, 10)
        assert os.get_blocking(one.fileno())
        two.send(b"x")
        reader.result()
        assert os.get_blocking(one.fileno())

    virtual(root)


def test_a_non_blocking_socket_never_waits_nor_raises_a_cancellation(virtual, pair):
    one, _ = pair

    def root():
        one.setblocking(False)
        with vthreads.CancelScope() as scope:
            scope.cancel()
            with pytest.raises(BlockingIOError):
                one.recv(10)
        assert not scope.cancelled_caught

    virtual(root)


@pytest.mark.parametrize(
    "call",
    [
        lambda sock, flags: sock.recv(10, flags),
        lambda sock, flags: sock.recv_into(bytearray(10), 0, flags),
        lambda sock, flags: sock.recvmsg(10, 0, flags),
        lambda sock, flags: [sock.send(bytes(100_000), flags) for _ in range(1000)],
        lambda sock, flags: [sock.sendall(bytes(100_000), flags) for _ in range(1000)],
        lambda sock, flags: [sock.sendmsg([bytes(100_000)], [], flags) for _ in range(1000)],
    ],
    ids=["recv", "recv_into", "recvmsg", "send", "sendall", "sendmsg"],
)
def test_a_call_that_asks_not_to_wait_never_waits_nor_raises_a_cancellation(virtual, pair, call):
    one, _ = pair

    def root():
        with vthreads.CancelScope() as scope:
            scope.cancel()
            with pytest.raises(BlockingIOError):
                call(one, socket.MSG_DONTWAIT)
        assert not scope.cancelled_caught

    virtual(root)


RECEIVES = {
    "recv": lambda sock, flags: sock.recv(10, flags),
    "recv_into": lambda sock, flags: sock.recv_into(bytearray(10), 0, flags),
    "recvfrom": lambda sock, flags: sock.recvfrom(10, flags),
    "recvfrom_into": lambda sock, flags: sock.recvfrom_into(bytearray(10), 0, flags),
    "recvmsg": lambda sock, flags: sock.recvmsg(10, 100, flags),
    "recvmsg_into": lambda sock, flags: sock.recvmsg_into([bytearray(10)], 100, flags),
}


@on_linux
@pytest.mark.parametrize("receive", RECEIVES.values(), ids=RECEIVES)
@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM], ids=["udp", "tcp"])
def test_nobody_waits_for_an_error_in_the_queue_nor_is_cancelled_there(virtual, receive, kind):
    def root():
        with socket.socket(socket.AF_INET, kind) as sock, vthreads.CancelScope() as scope:
            sock.bind(("127.0.0.1", 0))
            scope.cancel()
            for flags in (socket.MSG_ERRQUEUE, socket.MSG_ERRQUEUE | socket.MSG_WAITALL):
                with pytest.raises(BlockingIOError):
                    receive(sock, flags)
        assert not scope.cancelled_caught

    virtual(root)


@on_linux
@pytest.mark.parametrize("receive", RECEIVES.values(), ids=RECEIVES)
def test_an_error_in_the_queue_is_waited_for_as_long_as_the_socket_has_a_timeout(virtual, receive):
    def root():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
            sock.settimeout(3)
            with pytest.raises(TimeoutError):
                receive(sock, socket.MSG_ERRQUEUE)
        return vthreads.now()

    assert 3.0 == virtual(root)


@on_linux
@pytest.mark.parametrize("receive", RECEIVES.values(), ids=RECEIVES)
def test_a_socket_that_has_no_queue_of_errors_waits_for_data(virtual, pair, receive):
    one, two = pair

    def root():
        assert socket.AF_UNIX == one.family
        with ThreadGroup() as group:
            group.spawn(receive, one, socket.MSG_ERRQUEUE)
            vthreads.sleep(1)
            two.send(b"data")

    virtual(root)


@on_linux
@pytest.mark.parametrize("receive", RECEIVES.values(), ids=RECEIVES)
def test_nobody_waits_for_urgent_data_that_is_on_its_way(virtual, receive, error_of):
    def root():
        with socket.socket() as listener:
            # There is no room for what comes before the urgent data.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            sender = socket.create_connection(listener.getsockname())
            receiver, _ = listener.accept()
        with sender, receiver, vthreads.CancelScope() as scope:
            sender.send(bytes(20_000))
            sender.send(b"!", socket.MSG_OOB)
            # After this read the sender has room, and announces the urgent byte.
            receiver.recv(3000)
            scope.cancel()
            for flags in (socket.MSG_OOB, socket.MSG_OOB | socket.MSG_WAITALL):
                # Until the announcement has arrived.
                while (error := error_of(receive, receiver, flags)).errno == errno.EINVAL:
                    pass
                assert errno.EAGAIN == error.errno
        assert not scope.cancelled_caught

    virtual(root)


def receive_into(sock, count, flags):
    buffer = bytearray(count + 10)
    received = sock.recv_into(buffer, count, flags)
    return bytes(buffer[:received])


@pytest.mark.parametrize(
    "receive", [lambda sock, count, flags: sock.recv(count, flags), receive_into], ids=["recv", "recv_into"]
)
def test_a_receive_that_asks_for_all_waits_for_all(virtual, pair, receive):
    one, two = pair

    def root():
        waiting = vthreads.spawn(receive, one, 6, socket.MSG_WAITALL)
        for part in (b"ab", b"cd", b"efgh"):
            assert not waiting.done()
            two.sendall(part)
            vthreads.sleep(1)
        assert b"abcdef" == waiting.result()
        # The end of the stream, and a cancellation, answer with what there is.
        waiting = vthreads.spawn(receive, one, 6, socket.MSG_WAITALL)
        vthreads.sleep(1)
        waiting.cancel()
        assert b"gh" == waiting.result()
        two.sendall(b"ij")
        two.close()
        assert b"ij" == receive(one, 6, socket.MSG_WAITALL)

    virtual(root)


def test_a_timeout_is_told_as_a_float(virtual, pair):
    one, _ = pair

    def root():
        one.settimeout(3)
        return one.gettimeout()

    assert "3.0" == repr(virtual(root))


def test_strange_arguments_get_the_errors_of_the_original(virtual, pair):
    one, _ = pair

    def root():
        with pytest.raises(ValueError, match="negative buffersize"):
            one.recv(-1)
        with pytest.raises(ValueError, match="Timeout value out of range"):
            one.settimeout(-1)
        with pytest.raises(TypeError):
            one.settimeout("soon")
        assert b"" == one.recv(0)

    virtual(root)


# --- connecting


def test_a_refused_connection_is_told(virtual):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()

    def root():
        with socket.socket() as sock, pytest.raises(ConnectionRefusedError):
            sock.connect(address)
        with socket.socket() as sock:
            assert errno.ECONNREFUSED == sock.connect_ex(address)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)

    virtual(root)


def test_a_connection_by_name_goes_through_the_cooperative_look_up(virtual):
    def root():
        with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as sock:
            sock.connect(("localhost", server.getsockname()[1]))
            server.accept()[0].close()

    virtual(root)


def test_a_connection_timeout_is_told_both_ways(virtual):
    server = socket.create_server(("127.0.0.1", 0), backlog=0)
    fillers = [socket.socket() for _ in range(4)]
    for filler in fillers:
        filler.setblocking(False)
        filler.connect_ex(server.getsockname())

    def root():
        with pytest.raises(TimeoutError):
            socket.create_connection(server.getsockname(), timeout=3)
        with socket.socket() as sock:
            sock.settimeout(3)
            assert errno.EWOULDBLOCK == sock.connect_ex(server.getsockname())

    virtual(root)
    for one in (server, *fillers):
        one.close()


@pytest.mark.parametrize("flag", [None, "no", 0.5, 1 << 100], ids=["None", "text", "float", "large"])
def test_an_odd_flag_of_setblocking_is_taken_or_refused_as_ever(virtual, pair, flag):
    # Which flags are wrong depends on the version of Python.
    def outcome(setblocking):
        one, _ = pair
        one.settimeout(3)
        try:
            setblocking(one, flag)
        except Exception as error:
            return type(error), str(error), one.gettimeout()
        return one.gettimeout()

    plain = outcome(_socket.socket.setblocking)
    assert plain == virtual(lambda: outcome(socket.socket.setblocking))
