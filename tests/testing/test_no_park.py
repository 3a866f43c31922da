"""`no_park`."""

import queue
import re
import socket
import sys
import threading
import time
from types import FunctionType

import pytest

import vthreads
from vthreads import Event, Lock, ThreadGroup, sleep
from vthreads.testing import Parked, VirtualClock, no_park


def on_virtual_time(fn):
    return vthreads.run(fn, clock=VirtualClock())


def receive():
    here, there = socket.socketpair()
    with here, there:
        here.recv(1)


PARKING = {
    "sleep": (lambda: sleep(1), "sleep"),
    "time.sleep": (lambda: time.sleep(1), "sleep"),
    "Event": (lambda: Event().wait(), "Event.wait() of <Event"),
    "queue.Queue": (lambda: queue.Queue().get(), "test_no_park.py"),
    "threading.Event": (lambda: threading.Event().wait(), "test_no_park.py"),
    "socket": (receive, "test_no_park.py"),
    "join": (lambda: vthreads.spawn(sleep, 1).result(), "result()"),
    "sleep(0)": (lambda: sleep(0), "lets other threads run"),
    "checkpoint": (vthreads.checkpoint, "lets other threads run"),
}


@pytest.mark.parametrize(("call", "told"), PARKING.values(), ids=PARKING)
def test_what_would_park_is_named(call, told):
    def root():
        with pytest.raises(Parked) as caught, no_park():
            call()
        return str(caught.value)

    message = on_virtual_time(root)
    assert told in message
    assert "no_park" in message


@pytest.fixture
def until_it_waits():
    """An OS thread keeps the GIL until it waits: the thread that it starts cannot run before."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("until_it_waits")
def test_the_start_of_an_os_thread_parks_and_it_runs_all_the_same():
    def root():
        has_run = threading.Event()
        os_thread = threading.Thread(target=has_run.set)
        with pytest.raises(Parked, match=r"Thread\.start\(\) of <Thread 'Thread-\d+ \(set\)' at 0x"), no_park():
            os_thread.start()
        has_run.wait()
        os_thread.join()

    on_virtual_time(root)


class Unspeakable:
    """Stands for a class of the program, whose repr may do anything."""

    def __repr__(self):
        raise AssertionError("the repr was called")


class NamedThread(Unspeakable, threading.Thread):
    pass


class OwnEvent(Unspeakable, threading.Event):
    pass


def halfway_made():
    event = threading.Event()
    del event._flag
    return event


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (threading.Event, r"<threading.Event at 0x\w+: unset>"),
        (lambda: threading.Semaphore(3), r"<threading.Semaphore at 0x\w+: value=3>"),
        (lambda: NamedThread(name="a name"), r"<NamedThread 'a name' at 0x\w+>"),
        (OwnEvent, r"<[\w.]*OwnEvent object at 0x\w+>"),
        (halfway_made, r"<threading.Event object at 0x\w+>"),
    ],
)
def test_an_object_is_described_without_a_call_of_the_program(make, told):
    def wait(self):
        sleep(1)

    # As a method of the standard library, which is not the program's.
    of_threading = FunctionType(wait.__code__, {"__name__": "threading", "sleep": sleep})
    of_threading.__code__ = of_threading.__code__.replace(co_filename=threading.__file__)

    def root():
        with pytest.raises(Parked) as caught, no_park():
            of_threading(make())
        return str(caught.value)

    assert re.search(told, on_virtual_time(root))


def test_what_does_not_park_passes():
    def root():
        lock, event, items = Lock(), Event(), vthreads.Queue()
        event.set()
        items.put(1)
        with no_park():
            with lock:
                assert event.wait()
                assert 1 == items.get()
            vthreads.spawn(sleep, 1)
            assert not lock.acquire(blocking=False) or lock.release() is None
            with pytest.raises(queue.Empty):
                items.get_nowait()

    on_virtual_time(root)


def test_nothing_has_happened_when_it_raises():
    def root():
        lock = Lock()
        lock.acquire()
        with pytest.raises(Parked), no_park():
            lock.acquire()
        assert 0 == lock.statistics().waiting
        lock.release()
        assert not lock.locked()
        sleep(1)

    on_virtual_time(root)


def test_a_swallowed_error_comes_at_the_end():
    def root():
        with pytest.raises(Parked, match="sleep"), no_park():
            try:
                sleep(1)
            except Exception:
                pass

    on_virtual_time(root)


def test_a_wait_that_cannot_be_given_up_is_told_at_the_end():
    def root():
        with pytest.raises(Parked, match="ThreadGroup"), no_park():
            with ThreadGroup() as g:
                g.spawn(sleep, 1)
        return vthreads.now()

    assert 1 == on_virtual_time(root)


def test_threads_spawned_inside_may_park_and_outside_all_is_as_before():
    def root():
        kind = type(vthreads.current_thread())
        with no_park():
            child = vthreads.spawn(sleep, 1)
        sleep(2)
        assert child.done()
        thread = vthreads.current_thread()
        assert kind is type(thread)
        assert not thread._pending

    on_virtual_time(root)


def test_blocks_may_be_nested():
    def root():
        with no_park():
            with no_park():
                pass
            with pytest.raises(Parked):
                sleep(1)
            raise KeyError

    with pytest.raises(KeyError):
        on_virtual_time(root)


def test_cancellation_inside_is_delivered_as_ever():
    def root():
        with vthreads.CancelScope() as scope:
            with no_park():
                scope.cancel()
                Lock().acquire()
        return scope.cancelled_caught

    assert on_virtual_time(root)


def test_a_failure_of_the_block_comes_out_of_it():
    with pytest.raises(ZeroDivisionError), no_park():
        raise ZeroDivisionError


def test_on_an_os_thread_nothing_parks():
    with no_park():
        time.sleep(0)
        lock = threading.Lock()
        assert lock.acquire(timeout=0.01)
