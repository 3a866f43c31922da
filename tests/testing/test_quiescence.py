"""`wait_all_parked`."""

import socket
import threading

import pytest

import vthreads
from vthreads import ThreadGroup, sleep
from vthreads.testing import SeededOrder, VirtualClock, wait_all_parked


@pytest.mark.parametrize("order", [None, SeededOrder(1), SeededOrder(2)])
def test_it_returns_when_all_others_are_parked(order, virtual):
    def busy():
        for _ in range(100):
            sleep(0)
        done.append(True)
        sleep(1)

    def root():
        with ThreadGroup() as g:
            for _ in range(5):
                g.spawn(busy)
            wait_all_parked()
            assert 5 == len(done)
            assert 0 == vthreads.now()

    done = []
    virtual(root, order=order)


def test_a_thread_with_a_ready_descriptor_is_not_taken_for_parked():
    def echo(sock, rounds):
        for _ in range(rounds):
            sock.send(sock.recv(1))
        done.append(True)

    def root():
        here, there = socket.socketpair()
        with here, there, ThreadGroup() as g:
            # Each answer wakes the other one only when somebody looks at the descriptors.
            g.spawn(echo, here, 20)
            g.spawn(echo, there, 20)
            here.send(b"x")
            wait_all_parked()
            assert 2 == len(done)

    done = []
    vthreads.run(root, clock=VirtualClock())


def test_the_cushion_counts_from_the_last_activity(virtual):
    def root():
        with ThreadGroup() as g:
            g.spawn(sleep, 3)
            wait_all_parked(1.5)
            first = vthreads.now()
            wait_all_parked(10)
            return first, vthreads.now()

    assert (1.5, 13) == virtual(root)


def test_several_may_wait_and_each_comes_back_when_the_others_have_parked(virtual):
    def wait(name):
        wait_all_parked()
        order.append(name)
        sleep(0)
        order.append(name)
        event.wait()

    def root():
        with ThreadGroup() as g:
            for name in "abc":
                g.spawn(wait, name)
            wait_all_parked(1)
            event.set()

    order, event = [], vthreads.Event()
    virtual(root)
    assert [name * 2 for name in "abc"] == ["".join(order[i : i + 2]) for i in (0, 2, 4)]


def test_it_is_a_checkpoint_and_may_be_cancelled(virtual):
    def root():
        with vthreads.move_on_after(5) as scope:
            wait_all_parked(60)
        assert scope.cancelled_caught
        with vthreads.CancelScope() as scope:
            scope.cancel()
            wait_all_parked()
        assert scope.cancelled_caught
        assert vthreads.current_thread().scheduler.observer is None
        return vthreads.now()

    assert 5 == virtual(root)


def test_another_observer_goes_on_hearing_of_everything(virtual):
    class Log(list):
        def __getattr__(self, event):
            return lambda fiber: self.append((event, fiber.name))

    def root():
        scheduler = vthreads.current_thread().scheduler
        scheduler.observer = log = Log()
        with ThreadGroup() as g:
            g.spawn(sleep, 0).thread.name = "child"
            wait_all_parked()
        assert scheduler.observer is log
        scheduler.observer = None
        return [event for event, name in log if name == "child"]

    assert {"runs", "ended"} <= set(virtual(root))


def test_a_length_below_nothing_is_refused(virtual):
    with pytest.raises(ValueError, match="0 or more"):
        virtual(wait_all_parked, -1)


def test_it_looks_after_its_own_carrier_only():
    # The main thread of the other runtime never parks while this one asks.
    started, ended = threading.Event(), threading.Event()

    def other():
        started.set()
        ended.wait()

    os_thread = threading.Thread(target=vthreads.run, args=(other,))
    os_thread.start()
    started.wait()
    vthreads.run(wait_all_parked)
    ended.set()
    os_thread.join()
