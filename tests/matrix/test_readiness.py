"""Calls that wait until one of several descriptors is ready."""

import select
import selectors
import socket

import pytest

from tests.matrix.endings import AT_ONCE, Operations, nothing_happened, spawn_parked, with_every_cause

OPERATIONS = Operations()


@OPERATIONS.add
def select_select():
    one, two = socket.socketpair()
    with one, two:
        yield lambda: select.select([one], [], [])
        two.send(b"kept")
        assert ([one], [], []) == select.select([one], [], [], 0)


@OPERATIONS.add
def selector():
    one, two = socket.socketpair()
    with one, two, selectors.DefaultSelector() as chosen:
        key = chosen.register(one, selectors.EVENT_READ)
        yield chosen.select
        two.send(b"kept")
        assert [(key, selectors.EVENT_READ)] == chosen.select()


@OPERATIONS.add
def select_poll():
    one, two = socket.socketpair()
    with one, two:
        poll = select.poll()
        poll.register(one, select.POLLIN)
        yield poll.poll
        two.send(b"kept")
        assert [(one.fileno(), select.POLLIN)] == poll.poll(0)


@OPERATIONS.add
def select_epoll():
    one, two = socket.socketpair()
    with one, two, select.epoll() as epoll:
        epoll.register(one, select.EPOLLIN)
        yield epoll.poll
        two.send(b"kept")
        assert [(one.fileno(), select.EPOLLIN)] == epoll.poll(0)


@with_every_cause(OPERATIONS)
def test_nothing_happened(name, cause):
    nothing_happened(OPERATIONS[name], cause)


# --- another thread closes one of the descriptors, and the cause comes before the result


class _Waits:
    """A call that waits for sockets, and the one of them that another thread closes."""

    def __init__(self, call, closed):
        self.call = call
        self.closed = closed

    def __call__(self):
        return self.call()


def beside_closed(wait):
    """Return the operation of `wait`, which gets a socket that will be closed and one that stays open."""

    def operation():
        closed, _closed_peer = socket.socketpair()
        other, peer = socket.socketpair()
        with closed, _closed_peer, other, peer:
            fill(closed)
            yield _Waits(lambda: wait(closed, other), closed)
            peer.send(b"kept")
            assert ([other], [], []) == select.select([other], [], [], 0)

    return operation


def fill(sock):
    with pytest.raises(BlockingIOError):
        while True:
            sock.send(bytes(100_000), socket.MSG_DONTWAIT)


def select_by_selector(closed, other):
    with selectors.SelectSelector() as chosen:
        chosen.register(closed, selectors.EVENT_READ)
        chosen.register(other, selectors.EVENT_READ)
        return chosen.select()


AFTER_CLOSE = {
    "select_read": beside_closed(lambda closed, other: select.select([closed, other], [], [])),
    "select_write": beside_closed(lambda closed, other: select.select([other], [closed], [])),
    "select_closed_alone": beside_closed(lambda closed, _: select.select([closed], [], [])),
    "select_all_lists": beside_closed(lambda closed, other: select.select([closed, other], [closed], [closed, other])),
    "selector": beside_closed(select_by_selector),
}


def spawn_and_close(group, call):
    blocked = spawn_parked(group, call)
    call.closed.close()
    return blocked


@with_every_cause(AFTER_CLOSE, AT_ONCE)
def test_nothing_happened_after_a_descriptor_of_the_call_was_closed(name, cause):
    nothing_happened(AFTER_CLOSE[name], cause, spawn_and_close)
