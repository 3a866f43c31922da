"""`select` and similar calls, and selectors, on virtual threads."""

from __future__ import annotations

import contextlib
import os
import select
import selectors
import socket
import tempfile
import time

import pytest

import vthreads


def test_select_tells_what_is_ready_and_waits_for_the_rest(virtual, pair):
    one, two = pair

    def root():
        assert ([], [one], []) == select.select([one], [one], [], 10)
        start = vthreads.now()
        assert ([], [], []) == select.select([one], [], [], 10)
        assert 10.0 == vthreads.now() - start
        waiting = vthreads.spawn(select.select, [one, two], [], [])
        two.send(b"x")
        return waiting.result()

    assert ([one], [], []) == virtual(root)


def test_poll_waits_for_any_of_its_descriptors(virtual, pair):
    one, two = pair

    def root():
        poll = select.poll()
        poll.register(one, select.POLLIN)
        poll.register(two.fileno(), select.POLLIN)
        start = vthreads.now()
        assert [] == poll.poll(2000)
        assert 2.0 == vthreads.now() - start
        waiting = vthreads.spawn(poll.poll)
        one.send(b"x")
        assert [(two.fileno(), select.POLLIN)] == waiting.result()
        poll.unregister(two)
        assert [] == poll.poll(0)

    virtual(root)


def test_poll_refuses_what_the_original_refuses(virtual, pair):
    one, _ = pair

    def root():
        poll = select.poll()
        poll.register(one, select.POLLIN)
        with pytest.raises(OverflowError):
            poll.poll(1 << 31)
        with pytest.raises(TypeError):
            poll.poll("soon")
        waiting = vthreads.spawn(poll.poll, 1000)
        with pytest.raises(RuntimeError, match="concurrent poll"):
            poll.poll()
        assert [] == waiting.result()
        with pytest.raises(TypeError, match=r"cannot create 'select.poll' instances"):
            type(poll)()

    virtual(root)


def test_select_asks_each_file_for_its_number_once_while_it_waits(virtual, pair):
    one, two = pair
    asked = []

    class File:
        def fileno(self):
            asked.append(self)
            return one.fileno()

    def root():
        file = File()
        waiting = vthreads.spawn(select.select, (each for each in [file]), [], [], 10)
        before = len(asked)
        two.send(b"x")
        assert ([file], [], []) == waiting.result()
        assert before == len(asked)

    virtual(root)


def test_epoll_objects_wait_cooperatively(virtual, pair):
    one, two = pair

    def root():
        with select.epoll() as epoll:
            epoll.register(one, select.EPOLLIN)
            start = vthreads.now()
            assert [] == epoll.poll(2)
            assert 2.0 == vthreads.now() - start
            waiting = vthreads.spawn(epoll.poll)
            two.send(b"x")
            assert [(one.fileno(), select.EPOLLIN)] == waiting.result()
        assert epoll.closed

    virtual(root)


def test_pipes_and_regular_files_can_be_selected(virtual):
    def root():
        reading, writing = os.pipe()
        try:
            waiting = vthreads.spawn(select.select, [reading], [], [])
            os.write(writing, b"x")
            assert ([reading], [], []) == waiting.result()
            with tempfile.TemporaryFile() as file:
                assert ([file], [], []) == select.select([file], [], [])
        finally:
            os.close(reading)
            os.close(writing)

    virtual(root)


def poll_for(file, mask, seconds):
    poll = select.poll()
    poll.register(file, mask)
    return poll.poll(1000 * seconds)


def selector_for(kind, sock, seconds):
    with kind() as selector:
        selector.register(sock, selectors.EVENT_WRITE)
        return selector.select(seconds)


# Conditions that never hold: for a socket that has data to read but no room to write and whose peer sends no more, or
# for a file.
NEVER = {
    "select for urgent data": lambda sock, file, seconds: select.select([], [], [sock], seconds),
    "select for urgent data or to write": lambda sock, file, seconds: select.select([], [sock], [sock], seconds),
    "select to write": lambda sock, file, seconds: select.select([], [sock], [], seconds),
    "select for urgent data of a file": lambda sock, file, seconds: select.select([], [], [file], seconds),
    "poll for urgent data": lambda sock, file, seconds: poll_for(sock, select.POLLPRI, seconds),
    "poll for a hangup": lambda sock, file, seconds: poll_for(sock, select.POLLHUP, seconds),
    "poll for nothing": lambda sock, file, seconds: poll_for(sock, 0, seconds),
    "poll to write": lambda sock, file, seconds: poll_for(sock, select.POLLOUT, seconds),
    "poll for urgent data of a file": lambda sock, file, seconds: poll_for(file, select.POLLPRI, seconds),
    "SelectSelector": lambda sock, file, seconds: selector_for(selectors.SelectSelector, sock, seconds),
    "PollSelector": lambda sock, file, seconds: selector_for(selectors.PollSelector, sock, seconds),
    "EpollSelector": lambda sock, file, seconds: selector_for(selectors.EpollSelector, sock, seconds),
}


@pytest.fixture
def half_closed():
    """A socket that takes no more, with data to be read, and nothing to come."""
    # Not TCP: there, what was sent is on its way for a while, and the socket has room again when it has arrived.
    sock, peer = socket.socketpair()
    with sock, peer:
        peer.send(b"request")
        peer.shutdown(socket.SHUT_WR)
        sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                sock.send(bytes(100_000))
        sock.setblocking(True)
        yield sock


@pytest.mark.parametrize("wait", NEVER.values(), ids=NEVER.keys())
def test_a_readiness_that_nobody_asked_for_does_not_end_the_wait_nor_outlast_it(virtual, half_closed, wait):
    def root():
        scheduler = vthreads.current_thread()._scheduler
        with tempfile.TemporaryFile() as file:
            start, switches = vthreads.now(), scheduler.switches
            nothing = wait(half_closed, file, 5)
            return any(nothing), vthreads.now() - start, scheduler.switches - switches < 20

    assert (False, 5.0, True) == virtual(root)


@pytest.mark.parametrize("wait", NEVER.values(), ids=NEVER.keys())
def test_a_wait_that_was_woken_in_vain_is_cancelled_and_leaves_no_descriptor(virtual, half_closed, wait):
    def root():
        before = os.listdir("/proc/self/fd")
        with tempfile.TemporaryFile() as file, vthreads.move_on_after(3) as scope:
            wait(half_closed, file, 5)
        assert len(before) == len(os.listdir("/proc/self/fd"))
        return scope.cancelled_caught, vthreads.now(), half_closed.recv(100)

    assert (True, 3.0, b"request") == virtual(root)


def test_urgent_data_ends_the_wait_for_it(virtual):
    def root():
        listener = socket.create_server(("127.0.0.1", 0))
        with listener, socket.create_connection(listener.getsockname()) as peer, listener.accept()[0] as sock:
            peer.send(b"data")
            first, second = vthreads.spawn(select.select, [], [], [sock]), vthreads.spawn(poll_for, sock, 2, 60)
            vthreads.sleep(1)
            assert not first.done()
            assert not second.done()
            peer.send(b"!", socket.MSG_OOB)
            return first.result() == ([], [], [sock]), second.result() == [(sock.fileno(), select.POLLPRI)]

    assert (True, True) == virtual(root)


SENDS = {
    "sendall": lambda sock, file: sock.sendall(bytes(1000)),
    "send": lambda sock, file: sock.send(bytes(1000)),
    "sendmsg": lambda sock, file: sock.sendmsg([bytes(1000)]),
    "sendfile": lambda sock, file: sock.sendfile(file),
}


@pytest.mark.parametrize("send", SENDS.values(), ids=SENDS.keys())
def test_a_peer_that_sends_no_more_does_not_make_the_sender_spin(virtual, half_closed, send):
    def root():
        scheduler = vthreads.current_thread()._scheduler
        half_closed.settimeout(5)
        with tempfile.TemporaryFile() as file:
            file.truncate(1_000)
            start, switches = vthreads.now(), scheduler.switches
            with pytest.raises(TimeoutError):
                send(half_closed, file)
            return vthreads.now() - start, scheduler.switches - switches < 20

    assert (5.0, True) == virtual(root)


def test_time_sleep_keeps_the_original_errors(virtual):
    def root():
        with pytest.raises(ValueError, match="non-negative"):
            time.sleep(-1)
        with pytest.raises(TypeError):
            time.sleep("long")
        time.sleep(5)
        time.sleep(0)
        return vthreads.now()

    assert 5.0 == virtual(root)
