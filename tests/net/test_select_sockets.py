"""`select.select` of socket objects: their registration stays, and is that of their other calls."""

import select
import socket

import pytest

import vthreads
from vthreads import Cancelled, ThreadGroup
from vthreads.testing import wait_all_parked


def readable(sock):
    return select.select([sock], [], [])[0] == [sock]


def test_receives_and_selects_of_one_socket_alternate():
    def root():
        a, b = socket.socketpair()
        with a, b, ThreadGroup() as group:
            for wait in (readable, lambda sock: sock.recv(10, socket.MSG_PEEK)) * 3:
                waiting = group.spawn(wait, a)
                wait_all_parked()
                b.send(b"x")
                assert waiting.result()
                assert b"x" == a.recv(10)

    vthreads.run(root)


def test_a_cancelled_select_leaves_the_socket_to_the_next_call():
    def root():
        a, b = socket.socketpair()
        with a, b:
            with vthreads.move_on_after(0.01):
                readable(a)
            with ThreadGroup() as group:
                waiting = group.spawn(readable, a)
                wait_all_parked()
                b.send(b"x")
                assert waiting.result()
            assert b"x" == a.recv(10)

    vthreads.run(root)


def test_a_new_socket_with_the_same_number_is_waited_for():
    def root():
        for _ in range(3):
            a, b = socket.socketpair()
            with a, b, ThreadGroup() as group:
                waiting = group.spawn(readable, a)
                wait_all_parked()
                b.send(b"x")
                assert waiting.result()

    vthreads.run(root)


def test_a_select_of_two_sockets_reports_the_ready_one():
    def root():
        a, b = socket.socketpair()
        c, d = socket.socketpair()
        with a, b, c, d, ThreadGroup() as group:
            waiting = group.spawn(select.select, [a, c.fileno()], [], [a])
            wait_all_parked()
            d.send(b"x")
            assert ([c.fileno()], [], []) == waiting.result()

    vthreads.run(root)


def test_a_cancellation_reaches_a_thread_that_selects():
    def root():
        a, b = socket.socketpair()
        with a, b, ThreadGroup() as group:
            waiting = group.spawn(pytest.raises, Cancelled, readable, a)
            wait_all_parked()
            group.cancel()
        assert waiting.cancelled() or waiting.done()

    vthreads.run(root)


def test_a_select_of_one_socket_answers_as_the_original_does():
    def root():
        ours, theirs = socket.socketpair()
        with ours, theirs:
            answers = [select.select([ours], [], [], 0.001)]
            theirs.send(b"x")
            answers += [select.select((ours,), [], [], 1.5), select.select([ours], (), [], 60)]
            ours.recv(1)
            theirs.close()
            answers.append(select.select([ours], [], []))
        with pytest.raises(ValueError, match="negative"):
            select.select([ours], [], [])
        return [list(map(len, answer)) for answer in answers]

    assert [[0, 0, 0], *[[1, 0, 0]] * 3] == root() == vthreads.run(root)


def connected():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        a = socket.create_connection(listener.getsockname())
        b, _ = listener.accept()
    return a, b


@pytest.mark.parametrize("pair", [socket.socketpair, connected])
def test_a_select_goes_on_if_another_thread_has_read_the_data(pair):
    def root():
        a, b = pair()
        with a, b, ThreadGroup() as group:
            for _ in range(3):
                reading = group.spawn(a.recv, 10)
                wait_all_parked()
                waiting = group.spawn(readable, a)
                wait_all_parked()
                b.send(b"x")
                assert b"x" == reading.result()
                wait_all_parked()
                assert not waiting.done()
                b.send(b"y")
                assert waiting.result()
                assert b"y" == a.recv(10)

    vthreads.run(root)


@pytest.mark.parametrize("pair", [socket.socketpair, connected])
def test_a_select_with_a_limit_finds_what_arrives_before_and_after_it_begins(pair):
    def root():
        a, b = pair()
        with a, b, ThreadGroup() as group:
            for _ in range(3):
                b.send(b"x")
                # Whether the poller has reported them already or not.
                assert ([a], [], []) == select.select([a], [], [], 60)
                assert b"x" == a.recv(10)
                assert ([], [], []) == select.select([a], [], [], 0.001)
                waiting = group.spawn(select.select, [a], [], [], 60)
                wait_all_parked()
                b.send(b"x")
                assert ([a], [], []) == waiting.result()
                assert b"x" == a.recv(10)

    vthreads.run(root)


def test_a_select_for_reading_waits_for_more_than_urgent_data():
    def root():
        a, b = connected()
        with a, b, ThreadGroup() as group:
            waiting = group.spawn(readable, a)
            wait_all_parked()
            b.send(b"!", socket.MSG_OOB)
            # The edge of the urgent data ends this wait, so it has been reported.
            assert ([], [], [a]) == select.select([], [], [a], 60)
            wait_all_parked()
            assert not waiting.done()
            b.send(b"x")
            assert waiting.result()
            assert b"x" == a.recv(1)

    vthreads.run(root)


@pytest.mark.parametrize("pair", [socket.socketpair, connected])
def test_the_end_of_the_data_ends_a_select(pair):
    def root():
        a, b = pair()
        with a, b, ThreadGroup() as group:
            waiting = group.spawn(readable, a)
            wait_all_parked()
            b.shutdown(socket.SHUT_WR)
            assert waiting.result()
            assert b"" == a.recv(10)
            assert readable(a)

    vthreads.run(root)
