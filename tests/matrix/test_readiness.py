"""Calls that wait until one of several descriptors is ready."""

import select
import selectors
import socket

from tests.matrix.endings import Operations, nothing_happened, with_every_cause

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
