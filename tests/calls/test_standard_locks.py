"""The standard library's Condition on our locks: it unparks in order and loses no notify."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import vthreads
from tests.notifying import notify, wait_for_notify
from vthreads import CancelScope, Interrupted, ThreadGroup, checkpoint, sleep
from vthreads._calls.standard_locks import ConditionWaiterLock, StandardLock, StandardRLock
from vthreads._sync.locks import Lock, RLock
from vthreads.testing import VirtualClock

pytestmark = pytest.mark.unpatched


@pytest.fixture
def standard_condition(monkeypatch):
    """Makes what `threading.Condition` is after patching."""
    monkeypatch.setattr(threading, "_allocate_lock", ConditionWaiterLock)
    return lambda lock=None: threading.Condition(lock or StandardRLock())


@pytest.mark.parametrize("kind", [StandardLock, StandardRLock, Lock, RLock])
def test_a_standard_condition_wakes_in_order(virtual, standard_condition, kind, order):
    def root():
        condition, log = standard_condition(kind()), []
        with ThreadGroup() as group:
            for name in range(3):
                group.spawn(wait_for_notify, condition, log, name)
            for count in range(3):
                notify(condition)
                sleep(1)
                assert count + 1 == len(log)
        return log

    assert [0, 1, 2] == virtual(root, order=order)


@pytest.mark.parametrize("kind", [StandardLock, StandardRLock])
def test_no_notify_is_lost_on_a_waiter_cancelled_in_the_same_turn(virtual, standard_condition, kind, order):
    def root():
        condition, log = standard_condition(kind()), []
        with ThreadGroup() as group:
            first = group.spawn(wait_for_notify, condition, log, "first")
            group.spawn(wait_for_notify, condition, log, "second")
            first.cancel()
            notify(condition)
        assert first.cancelled()
        assert not condition._waiters
        return log

    assert ["second"] == virtual(root, order=order)


def test_no_notify_is_lost_on_a_waiter_interrupted_in_the_same_turn(virtual, standard_condition, order):
    def root():
        condition, log = standard_condition(), []

        def interrupted():
            with pytest.raises(Interrupted):
                wait_for_notify(condition, log, "first")

        with ThreadGroup() as group:
            first = group.spawn(interrupted)
            group.spawn(wait_for_notify, condition, log, "second")
            first.thread.interrupt()
            notify(condition)
        return log

    assert ["second"] == virtual(root, order=order)


class AdvancingClock(VirtualClock):
    """Also passes by what is added to `passed`."""

    passed = 0.0

    def now(self):
        return super().now() + self.passed


class InterruptingLock:
    """Interrupts the thread `waiter` when that releases the lock, and uses up its time slice."""

    def __init__(self, clock):
        self._lock = StandardLock()
        self._clock = clock
        self.waiter = None

    def acquire(self, *args, **kwargs):
        return self._lock.acquire(*args, **kwargs)

    def release(self):
        self._lock.release()
        if self.waiter is not None:
            self.waiter.interrupt()
            self.waiter = None
            self._clock.passed += 1

    def locked(self):
        return self._lock.locked()

    __enter__ = acquire

    def __exit__(self, *_):
        self.release()


def test_an_interrupt_of_a_waiter_is_raised_though_a_notify_comes_before_it_parks(standard_condition):
    clock = AdvancingClock()

    def root():
        lock = InterruptingLock(clock)
        condition, log = standard_condition(lock), []

        def interrupted():
            lock.waiter = vthreads.current_thread()
            try:
                wait_for_notify(condition, log, "first")
                checkpoint()
            except Interrupted:
                log.append("interrupted")

        with ThreadGroup() as group:
            group.spawn(interrupted)
            notify(condition)
        return log

    assert "interrupted" in vthreads.run(root, clock=clock, patch=False)


def test_no_notify_is_lost_on_a_waiter_that_timed_out_in_the_same_turn(virtual, standard_condition, order):
    def root():
        condition, log = standard_condition(), []
        with ThreadGroup() as group:
            group.spawn(wait_for_notify, condition, log, "first", 5)
            group.spawn(wait_for_notify, condition, log, "second")
            sleep(5)
            notify(condition)
        assert 1 == len(log)
        return bool(condition._waiters), log

    left, log = virtual(root, order=order)
    # Either the first was notified in time, and the second still waits; that would have been a deadlock.
    assert (False, ["second"]) == (left, log)


def test_no_notify_is_lost_on_a_waiter_that_gave_up_and_waits_for_the_lock(virtual, standard_condition):
    def root():
        condition, log = standard_condition(), []
        with ThreadGroup() as group:
            first = group.spawn(wait_for_notify, condition, log, "first", 5)
            second = group.spawn(wait_for_notify, condition, log, "second", 50)
            third = group.spawn(wait_for_notify, condition, log, "third")
            with condition:
                sleep(5)
                first.cancel()
                second.cancel()
                sleep(1)
                condition.notify()
            assert not third.done()
        assert second.cancelled()
        return log

    assert ["third"] == virtual(root)


def test_a_waiter_cancelled_before_it_waits_takes_no_notify(virtual, standard_condition):
    def root():
        condition, log = standard_condition(), []
        with ThreadGroup() as group:

            def cancelled():
                with condition, CancelScope() as scope:
                    scope.cancel()
                    condition.wait()
                return scope.cancelled_caught

            assert group.spawn(cancelled).result()
            group.spawn(wait_for_notify, condition, log, "second")
            notify(condition)
        return log

    assert ["second"] == virtual(root)


def test_a_zero_timeout_of_a_standard_condition_takes_no_notify(virtual, standard_condition):
    def root():
        condition, log = standard_condition(), []
        with ThreadGroup() as group:
            group.spawn(lambda: (sleep(1), condition.acquire(), sleep(1), condition.notify(), condition.release()))

            def polling():
                with condition:
                    # While it waits for the lock again, the notify comes.
                    sleep(1)
                    assert condition.wait(0) is False

            group.spawn(polling)
            sleep(0.5)
            group.spawn(
                lambda: condition.acquire() and (condition.wait() and log.append("second")) or condition.release()
            )
        return log

    assert ["second"] == virtual(root)


def test_a_waiter_notified_and_cancelled_in_the_same_turn_has_been_notified(virtual, standard_condition):
    def root():
        condition, log = standard_condition(), []
        with ThreadGroup() as group:
            first = group.spawn(wait_for_notify, condition, log, "first")
            notify(condition)
            first.cancel()
        return log

    assert ["first"] == virtual(root)


def test_an_os_thread_and_a_virtual_thread_notify_one_another(virtual, standard_condition):
    def root():
        condition, turn, log = standard_condition(), 0, []

        def player(me):
            nonlocal turn
            for _ in range(20):
                with condition:
                    condition.wait_for(lambda: turn == me)
                    log.append(me)
                    turn = 1 - me
                    condition.notify()

        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(player, 0)
            player(1)
            # No timeout: the clock does not notice an OS thread that is still running, and would jump to its end.
            future.result()
        return log

    assert [0, 1] * 20 == virtual(root)


def test_no_notify_is_lost_on_an_os_thread_whose_wait_times_out(standard_condition):
    condition = standard_condition()

    def wait(timeout, queued):
        with condition:
            queued.set()
            return condition.wait(timeout)

    with ThreadPoolExecutor(2) as pool:
        for _ in range(200):
            waiting = [threading.Event(), threading.Event()]
            impatient = pool.submit(wait, 0.0001, waiting[0])
            waiting[0].wait(10)
            patient = pool.submit(wait, 10, waiting[1])
            waiting[1].wait(10)
            with condition:
                condition.notify()
            if impatient.result(10):
                # The notify was for this one, so the other one needs its own.
                with condition:
                    condition.notify()
            assert patient.result(15)
    assert not condition._waiters


def test_the_lock_of_a_condition_waiter_serves_as_an_ordinary_lock_too(virtual):
    def root():
        lock, log = ConditionWaiterLock(), []
        lock.acquire()
        with ThreadGroup() as group:
            group.spawn(lambda: (lock.acquire(), log.append("waiter"), lock.release()))
            assert lock.acquire(timeout=1) is False
            lock.release()
            # The waiter holds the lock now, so the previous holder waits for it.
            assert lock.acquire()
            lock.release()
        return log, lock.locked()

    assert (["waiter"], False) == virtual(root)


def test_a_standard_lock_has_the_obsolete_names_of_the_original(virtual):
    def root():
        lock = StandardLock()
        lock.acquire_lock()
        seen = [lock.locked_lock(), lock.acquire_lock(False)]
        lock.release_lock()
        return [*seen, lock.locked()]

    assert [True, False, False] == virtual(root)


@pytest.mark.parametrize("make", [StandardLock, StandardRLock])
def test_a_standard_lock_can_be_left_without_arguments(virtual, make):
    def root():
        lock = make()
        lock.acquire()
        lock.__exit__()
        return lock.acquire(blocking=False)

    assert virtual(root)
