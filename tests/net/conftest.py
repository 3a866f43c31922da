"""A runtime on each poller, a pair of sockets, and what a call on them comes to."""

from __future__ import annotations

import socket
import threading

import pytest

import vthreads
from vthreads._core.engine.pollers import POLLERS
from vthreads.testing import VirtualClock


@pytest.fixture(params=POLLERS)
def virtual(request):
    """Call a function as root with the standard library patched, on each poller."""

    def run(fn):
        return vthreads.run(fn, clock=VirtualClock(), poller=request.param)

    return run


@pytest.fixture
def pair():
    one, two = socket.socketpair()
    with one, two:
        yield one, two


@pytest.fixture
def error_of():
    def error_of(call, *args):
        """The error that a call, expected to fail, fails with."""
        with pytest.raises(OSError) as caught:  # noqa: PT011  the caller checks its number
            call(*args)
        return caught.value

    return error_of


@pytest.fixture
def on_os_thread():
    def on_os_thread(call):
        outcome = []

        def run():
            try:
                outcome.append(call())
            except BaseException as error:
                outcome.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        return outcome[0]

    return on_os_thread
