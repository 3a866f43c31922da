"""`wait_all_parked`."""

import socket
import threading

import pytest

import vthreads
from vthreads import ThreadGroup, sleep
from vthreads._core import originals
from vthreads._core.deadlock import threads_of_run
from vthreads._core.placement import schedulers_beside
from vthreads.testing import SeededOrder, VirtualClock, check_nothing_leaked, wait_all_parked

pytestmark = pytest.mark.unpatched


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
            # Each answer unparks the other thread only at a poll.
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
        assert vthreads.current_thread()._scheduler.observer is None
        return vthreads.now()

    assert 5 == virtual(root)


def test_another_observer_goes_on_hearing_of_everything(virtual):
    class Log(list):
        def __getattr__(self, event):
            return lambda fiber: self.append((event, fiber.name))

    def root():
        scheduler = vthreads.current_thread()._scheduler
        scheduler.observer = log = Log()
        with ThreadGroup() as g:
            g.spawn(sleep, 0).thread.name = "child"
            wait_all_parked()
        assert scheduler.observer is log
        scheduler.observer = None
        return [event for event, name in log if name == "child"]

    assert {"runs", "ended"} <= set(virtual(root))


def test_a_length_below_nothing_is_refused(virtual):
    with pytest.raises(ValueError, match="must be >= 0 seconds"):
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


# --- several carriers


def on_all_carriers(root):
    return vthreads.run(root, carriers=3, patch=False)


def test_with_several_carriers_all_of_them_are_parked():
    def busy():
        for _ in range(100):
            sleep(0)
        done.append(True)
        event.wait()

    def root():
        with ThreadGroup(placement="spread") as g:
            futures = [g.spawn(busy) for _ in range(6)]
            wait_all_parked()
            seen = len(done), {future.thread.state.value for future in futures}
            # None of the threads that waited for the other carriers is left.
            seen += ([thread.name for thread in threads_of_run(vthreads.current_thread()._scheduler)],)
            event.set()
        return seen

    done, event = [], vthreads.Event()
    number, states, names = on_all_carriers(root)
    assert (6, {"parked"}) == (number, states)
    assert 3 + 6 == len(names)


def test_what_carriers_pass_to_each_other_does_not_count_as_parked():
    def pass_on(source, target):
        for _ in range(50):
            target.put(source.get())
        done.append(True)
        event.wait()

    def root():
        queues = [vthreads.SimpleQueue() for _ in range(3)]
        with ThreadGroup(placement="spread") as g:
            for number in range(3):
                g.spawn(pass_on, queues[number], queues[(number + 1) % 3])
            queues[0].put("token")
            wait_all_parked()
            seen = len(done)
            event.set()
        return seen

    done, event = [], vthreads.Event()
    assert 3 == on_all_carriers(root)


def test_a_thread_that_pins_another_carrier_is_not_parked():
    def pin():
        pinned.set()
        # In a C function, without the GIL. A wait that missed it would return before.
        originals.sleep(0.05)
        done.append(True)

    def root():
        with ThreadGroup(placement="spread") as g:
            for _ in range(3):
                g.spawn(pin)
            pinned.wait()
            wait_all_parked()
            return len(done)

    done, pinned = [], vthreads.Event()
    assert 3 == on_all_carriers(root)


def test_several_may_wait_on_several_carriers_and_come_back_one_by_one():
    def wait(name):
        wait_all_parked()
        order.append(name)
        for _ in range(10):
            sleep(0)
        order.append(name)
        event.wait()

    def root():
        with ThreadGroup(placement="spread") as g:
            for name in "abc":
                g.spawn(wait, name)
            while len(order) < 6:
                wait_all_parked()
            event.set()

    order, event = [], vthreads.Event()
    on_all_carriers(root)
    assert [order[i : i + 1] * 2 for i in (0, 2, 4)] == [order[i : i + 2] for i in (0, 2, 4)]


def test_with_several_carriers_the_wait_may_be_cancelled():
    def busy():
        while not ended:
            sleep(0)

    def root():
        with check_nothing_leaked(), ThreadGroup(placement="spread") as g:
            g.spawn(busy)
            with vthreads.move_on_after(0.01) as scope:
                wait_all_parked()
            ended.append(True)
            # The threads on the other carriers that waited as well end now.
            wait_all_parked()
        schedulers = schedulers_beside(vthreads.current_thread()._scheduler)
        return scope.cancelled_caught, {scheduler.observer for scheduler in schedulers}

    ended = []
    assert (True, {None}) == on_all_carriers(root)
