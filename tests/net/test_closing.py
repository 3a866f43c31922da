"""Sockets that are closed while threads wait, numbers that change their meaning, and plain OS threads."""

from __future__ import annotations

import errno
import os
import select
import socket
import threading

import pytest

import vthreads
from vthreads import fail_after
from vthreads.testing import wait_all_parked

# --- closing, and numbers that change their meaning


@pytest.mark.parametrize("close", [socket.socket.close, lambda sock: os.close(sock.detach())], ids=["close", "detach"])
def test_closing_a_socket_ends_the_wait_in_it(virtual, pair, close, error_of):
    one, _ = pair

    def root():
        reader = vthreads.spawn(error_of, one.recv, 10)
        close(one)
        return reader.result()

    error = virtual(root)
    assert errno.EBADF == error.errno


def leave(sock):
    sock.shutdown(socket.SHUT_RDWR)
    sock.close()


def leave_detached(sock):
    sock.shutdown(socket.SHUT_RDWR)
    os.close(sock.detach())


def leave_by_number(sock):
    sock.shutdown(socket.SHUT_RDWR)
    os.close(sock.fileno())


def call_here(fn, *args):
    fn(*args)


def call_in_os_thread(fn, *args):
    thread = threading.Thread(target=fn, args=args)
    thread.start()
    thread.join()


RECEIVING = {
    "recv": (lambda sock: sock.recv(10), b""),
    "recv_into": (lambda sock: sock.recv_into(bytearray(10)), 0),
    "recvfrom": (lambda sock: sock.recvfrom(10), (b"", None)),
    "recvfrom_into": (lambda sock: sock.recvfrom_into(bytearray(10)), (0, None)),
    "recvmsg": (lambda sock: sock.recvmsg(10), (b"", [], 0, None)),
    "recvmsg_into": (lambda sock: sock.recvmsg_into([bytearray(10)]), (0, [], 0, None)),
    "file": (lambda sock: sock.makefile("rb").readline(), b""),
}


@pytest.mark.parametrize("name", RECEIVING)
@pytest.mark.parametrize("end", [leave, leave_detached, leave_by_number])
@pytest.mark.parametrize("timeout", [None, 5])
def test_a_reader_of_a_socket_that_is_shut_down_and_closed_gets_the_end_of_data(virtual, pair, name, end, timeout):
    one, _ = pair
    one.settimeout(timeout)
    call, nothing = RECEIVING[name]

    def root():
        reader = vthreads.spawn(call, one)
        wait_all_parked()
        end(one)
        try:
            return reader.result()
        finally:
            if end is leave_by_number:
                # Its object still has the number, which may belong to another file soon.
                one.detach()

    assert nothing == virtual(root)


def datagrams_of_unix():
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)


def datagrams_of_ip():
    one, two = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    one.bind(("127.0.0.1", 0))
    two.connect(one.getsockname())
    one.connect(two.getsockname())
    return one, two


DATAGRAMS = pytest.mark.parametrize("make", [datagrams_of_unix, datagrams_of_ip])
ENDS_OF_READING = {
    "shutdown": lambda sock: sock.shutdown(socket.SHUT_RDWR),
    "shutdown of reading": lambda sock: sock.shutdown(socket.SHUT_RD),
    "shutdown and close": leave,
    "shutdown and detach": leave_detached,
}


@DATAGRAMS
@pytest.mark.parametrize("name", [name for name in RECEIVING if name != "file"])
@pytest.mark.parametrize("end", ENDS_OF_READING)
def test_a_reader_of_a_datagram_socket_that_is_shut_down_gets_the_end_of_data(virtual, make, name, end):
    call, nothing = RECEIVING[name]
    one, two = make()

    def root():
        with one, two:
            reader = vthreads.spawn(call, one)
            wait_all_parked()
            ENDS_OF_READING[end](one)
            return reader.result()

    assert nothing == virtual(root)


@DATAGRAMS
@pytest.mark.parametrize("timeout", [None, 5])
def test_a_datagram_socket_that_was_shut_down_gives_what_came_and_then_the_end_of_data(virtual, make, timeout):
    one, two = make()
    one.settimeout(timeout)

    def root():
        with one, two:
            two.send(b"data")
            one.shutdown(socket.SHUT_RD)
            return [one.recv(10) for _ in range(3)]

    assert [b"data", b"", b""] == virtual(root)


def listener_of_ip(_):
    return socket.create_server(("127.0.0.1", 0))


def listener_of_unix(folder):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "listener"))
    listener.listen()
    return listener


@pytest.mark.parametrize("listen", [listener_of_ip, listener_of_unix])
@pytest.mark.parametrize("end", ENDS_OF_READING)
@pytest.mark.parametrize("times", [1, 2])
def test_accept_of_a_listener_that_is_shut_down_fails_as_in_the_kernel(virtual, tmp_path, error_of, listen, end, times):
    def root():
        with listen(tmp_path) as listener:
            acceptors = [vthreads.spawn(error_of, listener.accept) for _ in range(times)]
            wait_all_parked()
            ENDS_OF_READING[end](listener)
            return [acceptor.result().errno for acceptor in acceptors]

    assert [errno.EINVAL] * times == virtual(root)


@pytest.mark.parametrize("shut", [call_here, call_in_os_thread])
@pytest.mark.parametrize("timeout", [None, 60])
def test_a_connect_in_progress_fails_when_its_socket_is_shut_down(virtual, error_of, shut, timeout):
    def root():
        with socket.socket() as listener, socket.socket() as first, socket.socket() as late:
            listener.bind(("127.0.0.1", 0))
            listener.listen(0)
            # It fills the queue of the listener, which then answers no other.
            first.connect(listener.getsockname())
            late.settimeout(timeout)
            connecting = vthreads.spawn(error_of, late.connect, listener.getsockname())
            wait_all_parked()
            shut(late.shutdown, socket.SHUT_RDWR)
            return connecting.result().errno

    assert errno.ECONNRESET == virtual(root)


def test_connect_ex_returns_the_error_of_a_socket_that_is_closed_meanwhile(virtual, tmp_path):
    def root():
        with listener_of_unix(tmp_path) as listener, socket.socket(socket.AF_UNIX) as first:
            listener.listen(0)
            first.connect(listener.getsockname())
            late = socket.socket(socket.AF_UNIX)
            connecting = vthreads.spawn(late.connect_ex, listener.getsockname())
            wait_all_parked()
            late.close()
            return connecting.result()

    assert errno.EBADF == virtual(root)


def test_a_socket_whose_number_was_closed_can_be_detached(virtual, pair):
    one, two = pair

    def root():
        number = one.fileno()
        one.settimeout(5)
        two.send(b"data")
        assert b"data" == one.recv(10)
        os.close(number)
        return number == one.detach()

    assert virtual(root)


def test_a_reader_gets_the_end_of_data_if_an_os_thread_shuts_down_and_closes(virtual, pair):
    one, _ = pair

    def root():
        reader = vthreads.spawn(one.recv, 10)
        wait_all_parked()
        closer = threading.Thread(target=leave, args=(one,))
        closer.start()
        received = reader.result()
        closer.join()
        return received

    assert b"" == virtual(root)


@pytest.mark.parametrize("end", [lambda sock: sock.shutdown(socket.SHUT_WR), leave])
@pytest.mark.parametrize("call", ["send", "sendall"])
def test_a_writer_of_a_socket_that_is_shut_down_finds_a_broken_pipe(virtual, pair, error_of, end, call):
    one, _ = pair

    def root():
        with vthreads.move_on_after(1):
            one.sendall(bytes(10_000_000))
        writer = vthreads.spawn(error_of, getattr(one, call), b"more")
        wait_all_parked()
        end(one)
        return writer.result()

    assert isinstance(virtual(root), BrokenPipeError)


def test_a_select_of_a_socket_that_is_shut_down_ends(virtual, pair):
    one, _ = pair

    def root():
        waiting = vthreads.spawn(select.select, [one], [], [])
        wait_all_parked()
        one.shutdown(socket.SHUT_RDWR)
        return waiting.result()

    assert ([one], [], []) == virtual(root)


@pytest.fixture
def other_pair():
    one, two = socket.socketpair()
    with one, two:
        yield one, two


@pytest.mark.parametrize("place", range(3), ids=["to read", "to write", "exceptional"])
def test_a_select_finds_a_socket_ready_that_was_closed_beside_others(virtual, pair, other_pair, place):
    """Linux does so when it looks again, for example because another one became ready."""
    one, _ = pair
    other, _ = other_pair

    def root():
        with vthreads.move_on_after(1):
            one.sendall(bytes(10_000_000))
        lists = [[], [], []]
        lists[place].append(one)
        waiting = vthreads.spawn(select.select, [*lists[0], other], *lists[1:])
        wait_all_parked()
        one.close()
        assert tuple(lists) == waiting.result()

    virtual(root)


def test_a_select_goes_on_if_the_number_of_a_closed_socket_means_another_file(virtual, pair, other_pair):
    one, _ = pair
    other, peer = other_pair

    def root():
        third, fourth = socket.socketpair()
        waiting = vthreads.spawn(select.select, [one, other], [], [])
        wait_all_parked()
        with third, fourth:
            os.dup2(third.fileno(), one.fileno())
            wait_all_parked()
            assert not waiting.done()
            peer.send(b"data")
            assert ([other], [], []) == waiting.result()

    virtual(root)


def test_a_select_of_sockets_that_are_all_closed_ends(virtual, pair, other_pair):
    one, _ = pair
    other, _ = other_pair

    def root():
        waiting = vthreads.spawn(select.select, [one, other], [], [])
        wait_all_parked()
        one.close()
        other.close()
        return waiting.result()

    assert ([one, other], [], []) == virtual(root)


@pytest.mark.parametrize("timeout", [None, 10])
@pytest.mark.parametrize("close", [socket.socket.close, lambda sock: os.close(sock.fileno())], ids=["socket", "number"])
def test_a_select_of_a_socket_that_is_closed_ends(virtual, pair, close, timeout):
    one, _ = pair

    def root():
        waiting = vthreads.spawn(select.select, [one], [], [], timeout)
        wait_all_parked()
        close(one)
        result = waiting.result()
        one.detach()
        return result, vthreads.now()

    assert (([one], [], []), 0) == virtual(root)


def test_a_select_goes_on_with_the_new_file_of_the_number_of_its_socket(virtual, pair):
    one, _ = pair

    def root():
        third, fourth = socket.socketpair()
        waiting = vthreads.spawn(select.select, [one], [], [])
        wait_all_parked()
        with third, fourth:
            os.dup2(third.fileno(), one.fileno())
            wait_all_parked()
            assert not waiting.done()
            fourth.send(b"data")
            assert ([one], [], []) == waiting.result()

    virtual(root)


def test_data_that_came_before_the_shutdown_are_read(virtual, pair):
    one, two = pair

    def root():
        reader = vthreads.spawn(one.recv, 10)
        wait_all_parked()
        two.send(b"data")
        one.shutdown(socket.SHUT_RDWR)
        return reader.result(), one.recv(10)

    assert (b"data", b"") == virtual(root)


def test_closing_from_an_os_thread_ends_the_wait(virtual, pair, error_of):
    one, _ = pair

    def root():
        reader = vthreads.spawn(error_of, one.recv, 10)
        closer = threading.Thread(target=one.close)
        closer.start()
        error = reader.result()
        closer.join()
        return error

    assert errno.EBADF == virtual(root).errno


def test_closing_a_listener_ends_accept(virtual, error_of):
    def root():
        server = socket.create_server(("127.0.0.1", 0))
        acceptor = vthreads.spawn(error_of, server.accept)
        server.close()
        return acceptor.result()

    assert errno.EBADF == virtual(root).errno


def test_os_close_ends_the_wait_and_the_next_owner_of_the_number_is_not_hung(virtual, error_of):
    def root():
        one, two = socket.socketpair()
        number = one.fileno()
        reader = vthreads.spawn(error_of, one.recv, 10)
        os.close(number)
        assert errno.EBADF == reader.result().errno
        third, fourth = socket.socketpair()
        assert number in (third.fileno(), fourth.fileno())
        one.detach()
        with third, fourth, two, fail_after(5):
            new_reader = vthreads.spawn(third.recv, 10)
            fourth.send(b"new")
            assert b"new" == new_reader.result()
            old_end = vthreads.spawn(fourth.recv, 10)
            third.send(b"back")
            assert b"back" == old_end.result()

    virtual(root)


def test_a_number_reused_by_c_code_behind_the_back_is_not_hung(virtual, pair):
    one, two = pair

    def root():
        reader = vthreads.spawn(one.recv, 10)
        two.send(b"registered")
        assert b"registered" == reader.result()
        # As C code does: close and reopen without a Python call. The originals stand in for it.
        from vthreads._calls.net import closing

        third, fourth = socket.socketpair()
        closing.original_dup2(third.fileno(), one.fileno())
        with third, fourth, fail_after(5):
            fresh = socket.socket(fileno=os.dup(one.fileno()))
            with fresh:
                new_reader = vthreads.spawn(fresh.recv, 10)
                fourth.send(b"new")
                assert b"new" == new_reader.result()

    virtual(root)


def test_dup2_onto_a_socket_is_not_hung(virtual, pair, error_of):
    one, two = pair

    def root():
        reader = vthreads.spawn(one.recv, 10)
        two.send(b"before")
        assert b"before" == reader.result()
        third, fourth = socket.socketpair()
        waiting = vthreads.spawn(error_of, one.recv, 10)
        os.dup2(third.fileno(), one.fileno())
        assert errno.EBADF == waiting.result().errno
        with third, fourth, fail_after(5):
            reader = vthreads.spawn(one.recv, 10)
            fourth.send(b"after")
            assert b"after" == reader.result()

    virtual(root)


def test_a_detached_socket_goes_on_under_its_new_owner(virtual, pair):
    one, two = pair

    def root():
        reader = vthreads.spawn(one.recv, 10)
        two.send(b"before")
        assert b"before" == reader.result()
        with socket.socket(fileno=one.detach()) as heir, fail_after(5):
            reader = vthreads.spawn(heir.recv, 10)
            two.send(b"after")
            assert b"after" == reader.result()

    virtual(root)


def test_a_closed_socket_says_so(virtual):
    def root():
        one, two = socket.socketpair()
        one.close()
        two.close()
        for call in (lambda: one.recv(1), lambda: one.send(b"x"), one.accept, lambda: one.connect("/nowhere")):
            with pytest.raises(OSError, match="Bad file descriptor"):
                call()

    virtual(root)


# --- plain OS threads beside them


def test_os_threads_share_sockets_with_virtual_threads(virtual, pair, on_os_thread):
    one, two = pair
    one.settimeout(5)

    def root():
        two.send(b"a")
        vthreads.sleep(1)
        assert b"a" == one.recv(1)
        # Now the socket is one that CPython sees as non-blocking; an OS thread must not notice.
        two.send(b"b")
        assert b"b" == on_os_thread(lambda: one.recv(1))
        one.settimeout(0.01)
        assert isinstance(on_os_thread(lambda: one.recv(1)), TimeoutError)
        assert 0.01 == on_os_thread(one.gettimeout)

    virtual(root)


def test_on_an_os_thread_the_originals_behave_as_ever(pair):
    vthreads.patch()
    one, two = pair
    one.settimeout(0.01)
    with pytest.raises(TimeoutError):
        one.recv(1)
    assert 0.01 == one.gettimeout()
    one.setblocking(False)
    with pytest.raises(BlockingIOError):
        one.recv(1)
    one.settimeout(None)
    two.send(b"x")
    assert b"x" == one.recv(1)
    assert not vthreads._core.current.on_carrier()


def test_a_close_is_an_event_for_poll_as_in_the_kernel(virtual, pair):
    one, _ = pair

    def root():
        poll = select.poll()
        poll.register(one, select.POLLIN)
        number = one.fileno()
        waiting = vthreads.spawn(poll.poll)
        wait_all_parked()
        one.close()
        assert [(number, select.POLLNVAL)] == waiting.result()

    virtual(root)


def test_poll_goes_on_with_the_new_file_of_a_number(virtual, pair):
    one, _ = pair

    def root():
        third, fourth = socket.socketpair()
        poll = select.poll()
        poll.register(one, select.POLLIN)
        waiting = vthreads.spawn(poll.poll)
        wait_all_parked()
        with third, fourth:
            os.dup2(third.fileno(), one.fileno())
            wait_all_parked()
            assert not waiting.done()
            fourth.send(b"data")
            assert [(one.fileno(), select.POLLIN)] == waiting.result()

    virtual(root)


def test_a_cancelled_poll_of_a_closed_descriptor_is_cancelled(virtual, pair):
    one, _ = pair

    def root():
        poll = select.poll()
        poll.register(one, select.POLLIN)
        waiting = vthreads.spawn(poll.poll)
        wait_all_parked()
        one.close()
        waiting.cancel()
        waiting.thread.join()
        return waiting.cancelled()

    assert virtual(root)
