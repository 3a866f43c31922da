"""Fixtures: a virtual clock, a run that must leave nothing behind, and the same for the process."""

import gc
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections import Counter
from contextvars import copy_context
from functools import cache

import pytest
from hypothesis import Phase, settings

import vthreads
from vthreads import _patching as patching
from vthreads._core.deadlock import threads_below
from vthreads._core.os_thread_kinds import quiet_os_threads
from vthreads.testing import SeededOrder, VirtualClock

pytest_plugins = ["tests.servers"]

# What a shell without job control starts in the background ignores it, and so would all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


# Each property runs 50 examples, or 500 with `pytest --hypothesis-profile=thorough`. Examples have no deadline, since a
# busy machine is slow. The phase `explain` is left out, which runs the examples under a tracer.
settings.register_profile("quick", max_examples=50, deadline=None, phases=[*Phase][: [*Phase].index(Phase.explain)])
settings.register_profile("thorough", settings.get_profile("quick"), max_examples=500)
settings.load_profile("quick")


# Seconds that an OS thread may take from the end of its work to its own end.
ENDS_WITHIN = 30

MARKERS = (
    "real: needs the real clock, network, signals or subprocesses",
    "thorough: takes long, and a quicker test covers the same kind of behaviour; `make test` leaves it out",
    "sampled(n): `make test` runs its first n cases; the others are as `thorough`",
    "everywhere: its result depends on the engine or the Python; `make test-variant` runs it even if it is thorough",
    "unpatched: the module begins with the standard library as it was; all others begin after `patch`",
    "ipv6: needs ::1, which some containers do without",
)


class FailuresAtOnce:
    """Prints each failure when it happens: pytest prints names only at the end, which a killed run never reaches."""

    def __init__(self, config):
        self._config = config

    def pytest_runtest_logreport(self, report):
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        if report.failed and terminal is not None:
            crash = getattr(report.longrepr, "reprcrash", None)
            place = "" if crash is None else f" - {crash.path}:{crash.lineno}: {crash.message.partition(chr(10))[0]}"
            terminal.write(f"\nFAILED in {report.when}: {report.nodeid}{place}\n", flush=True)


def pytest_configure(config):
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    if hasattr(config, "workerinput"):
        # Many tests call `vthreads.run` themselves: to them, too, the threads of pytest-xdist unpark nothing.
        quiet_os_threads.update(set(sys._current_frames()) - {threading.get_ident()})
    else:
        config.pluginmanager.register(FailuresAtOnce(config))


@cache
def has_ipv6():
    """Whether something can be bound to ::1 here."""
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


# First, since pytest deselects by `-m` in the same hook.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.getparent(pytest.Module).get_closest_marker("unpatched") is None)
    cases = Counter()
    for item in items:
        if sampled := item.get_closest_marker("sampled"):
            test = item.nodeid.partition("[")[0]
            cases[test] += 1
            if cases[test] > sampled.args[0]:
                item.add_marker("thorough")


def pytest_collection_finish():
    """Refuse modules that patch when they are imported, and exclude the tests and their imports from collections.

    The parameters of the tests would be replacements, also after `unpatch`. A search for leaks, for example, collects
    each time.
    """
    if patching.state.active:
        raise pytest.UsageError("a test module has patched the standard library at its import: do that in a subprocess")
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item):
    if item.get_closest_marker("ipv6") and not has_ipv6():
        pytest.skip("this machine has no ::1")


def pytest_pyfunc_call(pyfuncitem):
    """Call each test in a copy of the context: its root sets variables in its caller's, which later tests would see.

    This takes the place of pytest's own call.
    """
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    answer = copy_context().run(pyfuncitem.obj, **arguments)
    assert answer is None, "a test returns nothing, and is no coroutine function"
    return True


@pytest.fixture(autouse=True, scope="module")
def patched_or_not(request):
    """Patch the standard library before the tests of a module, or restore it if the module is marked `unpatched`.

    A patch searches all objects of the process, and a process with all tests has 200,000: it takes a second. So the
    modules of each kind follow one another.
    """
    if request.node.get_closest_marker("unpatched"):
        vthreads.unpatch()
    else:
        with warnings.catch_warnings():
            # Libraries that test modules import have made objects that stay as they were, as in any program.
            warnings.filterwarnings("ignore", "vthreads could not exchange", RuntimeWarning)
            vthreads.patch()
        patching.unpatch_threads()
    patching.state.refused = False


@pytest.fixture
def collected():
    """Free the garbage of earlier tests first: a test that records all warnings would record theirs, too."""
    gc.collect()


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
            scheduler = vthreads.current_thread()._scheduler
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
    assert scheduler.root._innermost is scheduler.root
    assert 0 == scheduler.descriptors.waiting
    assert 0 == len(scheduler.timers)
    assert 0 == len(scheduler._ready)
    assert [] == scheduler._spawners


@pytest.fixture(params=[None, 0, 1, 2], ids=lambda seed: "fifo" if seed is None else f"seed{seed}")
def order(request):
    """The order of ready threads: first in, first out, and some shuffled ones."""
    return None if request.param is None else SeededOrder(request.param)


# Before Python 3.15 `os.fork` goes on if its warning of other OS threads is an error.
FORKS = "ignore:This process:DeprecationWarning"


@pytest.fixture
def run_script():
    """Run a script in a separate process, where a warning is an error: what it prints."""

    def run_script(script, *arguments, **environment):
        ended = subprocess.run(
            [sys.executable, "-W", "error", "-W", FORKS, "-c", textwrap.dedent(script), *arguments],
            capture_output=True,
            text=True,
            timeout=200,
            env={**os.environ, **environment},
            check=False,
        )
        assert "" == ended.stderr
        return ended.stdout

    return run_script


def process_state():
    """The things that a test could leave in the process: OS threads and descriptors."""
    os_threads = {thread for thread in threading.enumerate() if not thread.name.startswith("vthreads-offload-")}
    fds = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            fds[fd] = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:
            # The one by which the directory was listed.
            pass
    tracker = sys.modules.get("multiprocessing.resource_tracker")
    if tracker is not None:
        # The pipe to a process that `multiprocessing` starts once, since Python 3.14 also for a pool of threads.
        fds.pop(str(tracker._resource_tracker._fd), None)
    return os_threads, fds


@pytest.fixture(autouse=True)
def nothing_left_in_the_process():
    """No new OS threads and no new descriptors after a test; idle threads of the offload pool may stay."""
    threads_before, fds_before = process_state()
    yield
    # They may have done their work and still be about to end, if the machine is busy. The loop that all virtual threads
    # share lives on an OS thread that `threading` did not start, so it cannot be joined.
    deadline = time.monotonic() + ENDS_WITHIN
    while process_state()[0] - threads_before and time.monotonic() < deadline:
        time.sleep(0.001)
    threads_after, fds_after = process_state()
    assert set() == threads_after - threads_before
    assert {} == {fd: file for fd, file in fds_after.items() if fd not in fds_before}
