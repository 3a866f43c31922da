"""The virtual clock, and the standard library's clocks on it."""

import concurrent.futures
import datetime
import hashlib
import multiprocessing
import queue
import subprocess
import sys
import threading
import time
from time import monotonic as captured

import pytest

import vthreads
from vthreads._core.engine import states
from vthreads.testing import VirtualClock

pytestmark = pytest.mark.unpatched


def on_virtual_time(fn, **options):
    return vthreads.run(fn, clock=VirtualClock(patch_time=True, **options))


CLOCKS = {
    "monotonic": lambda: time.monotonic(),
    "captured": lambda: captured(),
    "monotonic_ns": lambda: time.monotonic_ns() / 1e9,
    "perf_counter": lambda: time.perf_counter(),
    "perf_counter_ns": lambda: time.perf_counter_ns() / 1e9,
    "time": lambda: time.time(),
    "time_ns": lambda: time.time_ns() / 1e9,
    "clock_gettime(MONOTONIC)": lambda: time.clock_gettime(time.CLOCK_MONOTONIC),
    "clock_gettime(REALTIME)": lambda: time.clock_gettime(time.CLOCK_REALTIME),
    "clock_gettime_ns": lambda: time.clock_gettime_ns(time.CLOCK_MONOTONIC) / 1e9,
    "clock_gettime_ns(REALTIME)": lambda: time.clock_gettime_ns(time.CLOCK_REALTIME) / 1e9,
    "localtime": lambda: time.mktime(time.localtime()),
    "gmtime": lambda: time.mktime(time.gmtime()),
    "asctime": lambda: time.mktime(time.strptime(time.asctime())),
    "ctime": lambda: time.mktime(time.strptime(time.ctime())),
    "strftime": lambda: time.mktime(time.strptime(time.strftime("%Y-%m-%d %H:%M:%S"), "%Y-%m-%d %H:%M:%S")),
    "datetime.today": lambda: datetime.datetime.today().timestamp(),
}


@pytest.mark.parametrize("clock", CLOCKS.values(), ids=CLOCKS)
def test_the_clocks_of_the_standard_library_follow(clock):
    def root():
        before = clock()
        time.sleep(3600)
        return clock() - before

    assert 3600 == pytest.approx(on_virtual_time(root))


def test_wall_time_begins_at_the_epoch_of_the_clock():
    moment = datetime.datetime(2030, 5, 1, 12, tzinfo=datetime.UTC)

    def root():
        return datetime.datetime.fromtimestamp(time.time(), datetime.UTC), time.gmtime()[:5]

    assert (moment, (2030, 5, 1, 12, 0)) == on_virtual_time(root, epoch=moment.timestamp())
    assert (2000, 1, 1, 0, 0) == on_virtual_time(lambda: time.gmtime()[:5])


def test_functions_of_a_given_time_do_what_they_always_did():
    def root():
        return time.gmtime(0)[:4], time.strftime("%H", time.gmtime(7200)), time.asctime(time.gmtime(0)), time.ctime(0)

    assert ((1970, 1, 1, 0), "02", "Thu Jan  1 00:00:00 1970", time.ctime(0)) == on_virtual_time(root)


def test_what_measures_work_stays_real():
    def root():
        before = time.process_time(), time.thread_time(), time.clock_gettime(time.CLOCK_PROCESS_CPUTIME_ID)
        time.sleep(3600)
        after = time.process_time(), time.thread_time(), time.clock_gettime(time.CLOCK_PROCESS_CPUTIME_ID)
        return [there - here for here, there in zip(before, after, strict=True)]

    assert all(seconds < 3600 for seconds in on_virtual_time(root))


def test_timeouts_that_the_standard_library_counts_itself_end():
    # Both add up on `time.monotonic`: on the real clock they would go on until it has caught up.
    def root():
        with pytest.raises(queue.Empty):
            queue.Queue().get(timeout=3600)
        condition = threading.Condition()
        with condition:
            assert not condition.wait_for(lambda: False, timeout=3600)
        return time.monotonic()

    assert 7200 == pytest.approx(on_virtual_time(root))


def poll_a_connection(seconds):
    reader, writer = multiprocessing.Pipe()
    with reader, writer:
        return reader.poll(seconds)


def wait_for_futures(seconds):
    with pytest.raises(TimeoutError):
        list(concurrent.futures.as_completed([concurrent.futures.Future()], seconds))


def communicate(seconds):
    with subprocess.Popen(["sleep", "60"], stdout=subprocess.PIPE) as child:
        with pytest.raises(subprocess.TimeoutExpired):
            child.communicate(timeout=seconds)
        child.kill()


@pytest.mark.parametrize("seconds", [0, 5, 0.001 + 0.002])
@pytest.mark.parametrize("wait", [poll_a_connection, wait_for_futures, communicate])
def test_a_wait_that_ends_after_its_deadline_ends_on_virtual_time(wait, seconds):
    def root():
        time.sleep(1 / 3)
        start = vthreads.now()
        wait(seconds)
        return vthreads.now() - start

    # The clock of the program may run on by the least amount, but not that of the runtime.
    # A poll rounds up to milliseconds.
    assert seconds == pytest.approx(on_virtual_time(root), abs=0.0011)


@pytest.mark.parametrize("clock", ["monotonic", "monotonic_ns", "time", "time_ns"])
def test_a_loop_that_waits_for_a_later_time_ends(clock):
    def root():
        read = getattr(time, clock)
        start = read()
        while read() <= start:
            pass
        return vthreads.now(), read() - start

    now, passed = on_virtual_time(root)
    assert 0 == now
    assert 1 == passed if clock.endswith("_ns") else 0 < passed < 1e-6


def test_an_os_thread_keeps_the_real_time():
    def root():
        told = []
        time.sleep(1e9)
        os_thread = threading.Thread(target=lambda: told.append((time.monotonic(), time.time(), time.gmtime()[0])))
        os_thread.start()
        os_thread.join()
        return told[0]

    before = time.monotonic(), time.time(), time.gmtime()[0]
    during = on_virtual_time(root)
    after = time.monotonic(), time.time(), time.gmtime()[0]
    assert all(first <= second <= third for first, second, third in zip(before, during, after, strict=True))


def test_a_runtime_with_another_clock_keeps_the_real_time():
    def root():
        told = []

        def other():
            told.append(vthreads.run(lambda: (vthreads.now() - time.monotonic(), time.time())))

        os_thread = threading.Thread(target=other)
        os_thread.start()
        os_thread.join()
        return told[0]

    difference, moment = on_virtual_time(root, epoch=0.0)
    assert 0 == pytest.approx(difference, abs=10)
    assert moment > 1e9


def test_afterwards_everything_is_as_it_was():
    names = ("monotonic", "time", "perf_counter", "time_ns", "localtime", "strftime", "clock_gettime")
    before = [getattr(time, name) for name in names]
    on_virtual_time(lambda: None)
    with pytest.raises(ZeroDivisionError):
        on_virtual_time(lambda: 1 / 0)
    assert before == [getattr(time, name) for name in names]
    assert captured is time.monotonic


def test_it_happens_on_request_only():
    before = time.monotonic
    assert vthreads.run(lambda: time.monotonic is before, clock=VirtualClock())
    assert vthreads.run(lambda: time.time(), clock=VirtualClock()) > 1e9


def test_a_class_that_keeps_a_clock_does_not_make_a_method_of_it():
    def root():
        class Timer:
            now = time.monotonic

        return Timer().now()

    assert 0.0 == on_virtual_time(root)


# --- what happens outside before a jump


def compute(seconds):
    """Run C code without the GIL for some seconds of real time."""
    until = captured() + seconds
    while captured() < until:
        hashlib.pbkdf2_hmac("sha256", b"", b"", 20_000)


def ended_in_time(call, patience):
    """Whether an offloaded call wins against a timeout of virtual time."""

    def root():
        with vthreads.move_on_after(10, cleanup_grace=3600) as scope:
            vthreads.offload(call)
        return not scope.cancel_called

    return vthreads.run(root, clock=VirtualClock(outside_patience=patience))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says which OS threads run")
def test_an_os_thread_that_runs_is_waited_for():
    assert ended_in_time(lambda: compute(0.3), patience=0.001)


def test_an_os_thread_that_waits_is_not_waited_for():
    released = threading.Event()

    def root():
        try:
            with vthreads.move_on_after(10) as scope:
                vthreads.offload(released.wait, on_cancel="abandon")
        finally:
            released.set()
        return scope.cancel_called, vthreads.now()

    assert (True, 10) == vthreads.run(root, clock=VirtualClock(outside_patience=0.001))


@pytest.mark.thorough
@pytest.mark.parametrize("patch_time", [False, True])
def test_an_os_thread_that_never_waits_does_not_stop_the_time(patch_time):
    ended = threading.Event()

    def compute_on():
        while not ended.is_set():
            compute(0.01)

    def root():
        try:
            vthreads.spawn(vthreads.offload, compute_on)
            vthreads.sleep(3600)
        finally:
            ended.set()
        return vthreads.now()

    assert 3600 == vthreads.run(root, clock=VirtualClock(outside_patience=0.001, patch_time=patch_time))


def test_the_end_of_spare_greenlets_does_not_shorten_the_patience(monkeypatch):
    monkeypatch.setattr(states, "POOL_SIZE", 10)
    monkeypatch.setattr(states, "SHRINK_EVERY", 0.01)

    def root():
        with vthreads.ThreadGroup() as group:
            for _ in range(100):
                group.spawn(vthreads.sleep, 1)
        with vthreads.move_on_after(10, cleanup_grace=3600) as scope:
            vthreads.offload(threading.Event().wait, 0.2)
        return scope.cancel_called

    assert not vthreads.run(root, clock=VirtualClock(outside_patience=60))
