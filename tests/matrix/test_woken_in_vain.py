"""Calls that are woken in vain: another reader of the descriptor was faster, or the event was of another kind.

Calls that wait for a grant are never unparked without it.
"""

import select
import selectors
import socket

import pytest

import vthreads
from tests.matrix.endings import nothing_happened, spawn_parked, with_every_cause
from tests.matrix.test_readiness import OPERATIONS as READINESS
from tests.matrix.test_sockets import OPERATIONS as SOCKETS
from tests.matrix.test_tls import OPERATIONS as TLS
from vthreads import ThreadGroup
from vthreads.testing import VirtualClock

OPERATIONS = {
    **READINESS,
    "makefile_read": SOCKETS["makefile_read"],
    "tls_read": TLS["tls_read"],
    "tls_read_over_tcp": TLS["tls_read_over_tcp"],
}


def wake_in_vain(thread, times):
    """Unpark a thread that waits for a descriptor: each time it looks, and parks again with the rest of its time."""
    for _ in range(times):
        thread._unpark(True)
        vthreads.sleep(0)
        assert "parked" == thread.state.value


# After more than two events in vain, `select` and `poll` pause before they wait again.
@pytest.mark.parametrize("times", [1, 4])
@with_every_cause(OPERATIONS)
def test_nothing_happened_after_the_call_was_woken_in_vain(name, cause, times):
    def spawn_woken(group, call):
        blocked = spawn_parked(group, call)
        wake_in_vain(blocked.thread, times)
        return blocked

    nothing_happened(OPERATIONS[name], cause, spawn_woken)


def expired(receive):
    with pytest.raises(TimeoutError):
        receive(1)


def waits_with_limit():
    """Calls that wait 10 seconds for data of the first of two sockets, by name."""
    one, two = socket.socketpair()
    poll, epoll, chosen = select.poll(), select.epoll(), selectors.DefaultSelector()
    poll.register(one, select.POLLIN)
    epoll.register(one, select.EPOLLIN)
    chosen.register(one, selectors.EVENT_READ)
    one.settimeout(10)
    with one, two, epoll, chosen:
        yield {
            "select": lambda: select.select([one], [], [], 10),
            "poll": lambda: poll.poll(10_000),
            "epoll": lambda: epoll.poll(10),
            "selector": lambda: chosen.select(10),
            "recv": lambda: expired(one.recv),
        }


@pytest.mark.parametrize("times", [1, 4])
@pytest.mark.parametrize("name", ["select", "poll", "epoll", "selector", "recv"])
def test_a_call_that_is_woken_in_vain_keeps_its_limit(name, times):
    def root():
        for calls in waits_with_limit():
            start = vthreads.now()
            with ThreadGroup() as group:
                blocked = group.spawn(calls[name])
                vthreads.sleep(4)
                wake_in_vain(blocked.thread, times)
            assert 10 == pytest.approx(vthreads.now() - start)

    vthreads.run(root, clock=VirtualClock())
