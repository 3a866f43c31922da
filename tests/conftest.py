"""Fixtures: a virtual clock, a run that must leave nothing behind, and the same for the process."""

import os
import signal
import socket
import threading
from functools import cache

import pytest

import vthreads
from vthreads import patching
from vthreads._core.deadlock import threads_below
from vthreads.testing import SeededOrder, VirtualClock

# What a shell without job control starts in the background ignores it, and so would all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


MARKERS = (
    "real: needs the real clock, network, signals or subprocesses",
    "ipv6: needs ::1, which some containers do without",
)


def pytest_configure(config):
    # Here and not in pyproject.toml: the tests are run against a wheel as well, without that.
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)


@cache
def has_ipv6():
    """Whether something can be bound to ::1 here."""
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


def pytest_runtest_setup(item):
    if item.get_closest_marker("ipv6") and not has_ipv6():
        pytest.skip("this machine has no ::1")


@pytest.fixture(autouse=True, scope="module")
def originals_in_place():
    """Each module begins with the standard library as it was; `run` patches it again where a test lets it."""
    vthreads.unpatch()
    patching.state.refused = False


@pytest.fixture
def clock():
    return VirtualClock()


@pytest.fixture
def virtual(clock):
    """Call a function as root on a virtual clock; afterwards nothing may be left on its carrier.

    Keyword arguments are those of `run`; `args` are the function's.
    """

    def run(fn, /, *args, **options):
        schedulers = []

        def root():
            scheduler = vthreads.current_thread().scheduler
            schedulers.append(scheduler)
            result = fn(*args)
            if not any(map(len, (scheduler.background, scheduler.threads, scheduler.daemons))):
                assert_nothing_left(scheduler)
            return result

        try:
            return vthreads.run(root, **{"clock": clock, "patch": False, **options})
        finally:
            assert_nothing_left(*schedulers)

    return run


def assert_nothing_left(scheduler):
    assert [] == [thread for thread in threads_below(scheduler) if thread is not scheduler.root]
    assert scheduler.root.innermost is scheduler.root
    assert 0 == scheduler.descriptors.waiting
    assert 0 == len(scheduler.timers)
    assert 0 == len(scheduler._ready)
    assert [] == scheduler._spawners


@pytest.fixture(params=[None, 0, 1, 2], ids=lambda seed: "fifo" if seed is None else f"seed{seed}")
def order(request):
    """The order of ready threads: first in, first out, and some shuffled ones."""
    return None if request.param is None else SeededOrder(request.param)


def process_state():
    """What a test could leave in the process: OS threads and descriptors."""
    os_threads = {thread for thread in threading.enumerate() if not thread.name.startswith("vthreads-offload-")}
    fds = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            fds[fd] = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:
            # The one by which the directory was listed.
            pass
    return os_threads, fds


@pytest.fixture(autouse=True)
def nothing_left_in_the_process():
    """No new OS threads and no new descriptors after a test; idle threads of the offload pool may stay."""
    threads_before, fds_before = process_state()
    yield
    threads_after, fds_after = process_state()
    assert set() == threads_after - threads_before
    assert {} == {fd: file for fd, file in fds_after.items() if fd not in fds_before}
