"""Conditions: guarantees beyond the common ones of `test_waiting`."""

from __future__ import annotations

import pytest

from tests.notifying import notify, wait_for_notify
from vthreads import Cancelled, Interrupted, ThreadGroup, now, sleep
from vthreads._sync.conditions import Condition
from vthreads._sync.locks import Lock
from vthreads._sync.statistics import ConditionStatistics

pytestmark = pytest.mark.unpatched


def test_a_condition_wakes_in_order_and_no_more_than_asked_for(virtual):
    def root():
        condition, log = Condition(), []
        with ThreadGroup() as group:
            for name in range(5):
                group.spawn(wait_for_notify, condition, log, name)
            assert ConditionStatistics(5) == condition.statistics()
            notify(condition, 2)
            sleep(1)
            assert [0, 1] == log
            assert ConditionStatistics(3) == condition.statistics()
            with condition:
                condition.notify_all()
        return log

    assert [0, 1, 2, 3, 4] == virtual(root)


def test_waiting_and_notifying_need_the_lock(virtual):
    def root():
        for condition in (Condition(), Condition(Lock())):
            with pytest.raises(RuntimeError, match="cannot wait on un-acquired lock"):
                condition.wait()
            with pytest.raises(RuntimeError, match="cannot notify on un-acquired lock"):
                condition.notify()
            with pytest.raises(RuntimeError, match="cannot notify on un-acquired lock"):
                condition.notify_all()

    virtual(root)


@pytest.mark.parametrize("end", ["cancel", "interrupt"])
def test_the_lock_is_owned_after_the_wait_however_it_ended(virtual, end):
    def root():
        condition = Condition()

        def waiter():
            with condition, condition:
                with pytest.raises((Cancelled, Interrupted)):
                    condition.wait()
                assert 2 == condition._lock._recursion_count()

        with ThreadGroup() as group:
            future = group.spawn(waiter)
            with condition:
                future.cancel() if end == "cancel" else future.thread.interrupt()
                # Taking the lock again is waited for, and not given up.
                sleep(1)
                assert not future.done()
        return condition._lock.locked()

    assert virtual(root) is False


def test_a_notified_waiter_that_is_cancelled_while_it_takes_the_lock_has_succeeded(virtual):
    def root():
        condition, log = Condition(), []
        with ThreadGroup() as group:
            future = group.spawn(wait_for_notify, condition, log, "notified")
            with condition:
                condition.notify()
                sleep(1)
                future.cancel()
                sleep(1)
        return log

    assert ["notified"] == virtual(root)


def test_waiting_for_a_predicate(virtual):
    def root():
        condition, items = Condition(), []

        def waiter():
            with condition:
                return condition.wait_for(lambda: items)

        with ThreadGroup() as group:
            future = group.spawn(waiter)
            notify(condition)
            sleep(1)
            assert not future.done()
            items.append(1)
            notify(condition)
        return future.result()

    assert [1] == virtual(root)


def test_waiting_for_a_predicate_has_one_timeout_for_all_its_waits(virtual):
    def root():
        condition = Condition()

        def disturb():
            for _ in range(20):
                sleep(1)
                notify(condition)

        with ThreadGroup() as group:
            disturber = group.spawn(disturb)
            with condition:
                assert condition.wait_for(lambda: 0, timeout=5) == 0
            assert 5 == now()
            disturber.cancel()

    virtual(root)


class ForeignLock:
    """Any object with these four will do."""

    def __init__(self):
        self._lock = Lock()
        self.acquire, self.release = self._lock.acquire, self._lock.release

    def __enter__(self):
        return self.acquire()

    def __exit__(self, *_):
        self.release()


def test_a_condition_on_a_foreign_lock(virtual):
    def root():
        condition, log = Condition(ForeignLock()), []
        with pytest.raises(RuntimeError):
            condition.notify()
        with ThreadGroup() as group:
            cancelled = group.spawn(wait_for_notify, condition, log, 1)
            group.spawn(wait_for_notify, condition, log, 2)
            cancelled.cancel()
            sleep(0)
            notify(condition)
        assert not condition._is_owned()
        return log

    assert [2] == virtual(root)


def test_conditions_can_share_a_lock(virtual):
    def root():
        lock, log = Lock(), []
        one, two = Condition(lock), Condition(lock)
        with ThreadGroup() as group:
            group.spawn(wait_for_notify, one, log, "one")
            group.spawn(wait_for_notify, two, log, "two")
            notify(two)
            sleep(1)
            notify(one)
        return log

    assert ["two", "one"] == virtual(root)


def test_a_condition_says_its_state(virtual):
    assert "<Condition <RLock unlocked waiting=0> waiting=0>" == repr(Condition())
