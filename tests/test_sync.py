"""Locks, conditions, events, semaphores and barriers: what each promises beyond the common rules of `test_waiting`."""

from __future__ import annotations

import copy
import re
import threading
import time
from _thread import RLock as PlainRLock
from _thread import allocate_lock as plain_lock
from concurrent.futures import ThreadPoolExecutor
from threading import BrokenBarrierError

import pytest

import vthreads
from vthreads import Cancelled, CancelScope, Interrupted, ThreadGroup, now, sleep
from vthreads.sync import (
    Barrier,
    BarrierStatistics,
    BoundedSemaphore,
    Condition,
    ConditionStatistics,
    ConditionWaiterLock,
    Event,
    EventStatistics,
    Lock,
    LockStatistics,
    RLock,
    Semaphore,
    SemaphoreStatistics,
    StandardLock,
    StandardRLock,
)

PLAIN = [Lock, StandardLock, ConditionWaiterLock]
REENTRANT = [RLock, StandardRLock]
LOCKS = PLAIN + REENTRANT


def until(condition):
    while not condition():
        sleep(0)
        time.sleep(0)


def elsewhere(call, *args, **keywords):
    """Call it in a virtual thread of its own."""
    with ThreadGroup() as group:
        future = group.spawn(call, *args, **keywords)
    return future.result()


def in_os_thread(call, *args, **keywords):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call, *args, **keywords).result(10)


# --- locks of all kinds


@pytest.mark.parametrize("kind", LOCKS)
def test_a_lock_is_held_by_one_at_a_time(virtual, kind, order):
    def root():
        lock, inside, log = kind(), 0, []

        def worker(number):
            nonlocal inside
            for _ in range(3):
                with lock:
                    inside += 1
                    assert 1 == inside
                    sleep(0)
                    log.append(number)
                    inside -= 1

        with ThreadGroup() as group:
            for number in range(3):
                group.spawn(worker, number)
        assert not lock.locked()
        # Whoever has had it queues up again behind the others.
        assert {0, 1, 2} == set(log[:3]) == set(log[3:6])

    virtual(root, order=order)


@pytest.mark.parametrize("kind", LOCKS)
def test_a_released_lock_is_handed_over_and_not_taken_by_a_latecomer(virtual, kind):
    def root():
        lock, log = kind(), []
        lock.acquire()
        with ThreadGroup() as group:
            group.spawn(lambda: (lock.acquire(), log.append("waiter"), lock.release()))
            lock.release()
            assert lock.locked()
            assert not lock.acquire(blocking=False)
            lock.acquire()
            log.append("latecomer")
            lock.release()
        return log

    assert ["waiter", "latecomer"] == virtual(root)


@pytest.mark.parametrize("kind", LOCKS)
def test_acquire_refuses_what_threading_refuses(kind):
    lock = kind()
    for held in (False, True):
        if held:
            lock.acquire()
        with pytest.raises(ValueError, match="can't specify a timeout for a non-blocking call"):
            lock.acquire(False, 1)
        with pytest.raises(ValueError, match="timeout value must be a non-negative number"):
            lock.acquire(timeout=-2)
        with pytest.raises(ValueError, match="timeout value must be a non-negative number"):
            lock.acquire(timeout=float("nan"))
        with pytest.raises(OverflowError, match="timeout value is too large"):
            lock.acquire(timeout=threading.TIMEOUT_MAX * 2)
        with pytest.raises(TypeError):
            lock.acquire(timeout="1")


@pytest.mark.parametrize("kind", LOCKS)
def test_the_longest_timeout_of_threading_is_accepted(virtual, kind):
    def root():
        lock = kind()
        lock.acquire()
        with ThreadGroup() as group:
            group.spawn(lock.acquire, timeout=threading.TIMEOUT_MAX)
            lock.release()
        return lock.statistics().waiting

    assert 0 == virtual(root)


@pytest.mark.parametrize("kind", PLAIN)
def test_releasing_a_free_lock_is_an_error(kind):
    with pytest.raises(RuntimeError, match="release unlocked lock"):
        kind().release()


@pytest.mark.parametrize("kind", PLAIN)
def test_any_thread_may_release_a_lock(virtual, kind):
    def root():
        lock = kind()
        for release in (elsewhere, in_os_thread):
            lock.acquire()
            release(lock.release)
            assert not lock.locked()

    virtual(root)


@pytest.mark.parametrize("kind", LOCKS)
def test_the_block_of_a_lock_releases_it_after_an_exception(kind):
    lock = kind()
    with pytest.raises(ZeroDivisionError), lock:
        assert lock.locked()
        _ = 1 / 0
    assert not lock.locked()


@pytest.mark.parametrize("kind", [Lock, RLock, ConditionWaiterLock])
def test_a_lock_says_its_state(kind):
    lock = kind()
    assert f"<{kind.__name__} unlocked waiting=0>" == repr(lock)
    with lock:
        assert f"<{kind.__name__} locked" in repr(lock)


@pytest.mark.parametrize(("kind", "original"), [(StandardLock, plain_lock), (StandardRLock, PlainRLock)])
def test_a_standard_lock_cannot_be_told_from_the_original(kind, original):
    def told(lock):
        return re.sub(r"0x\w+|owner=[1-9]\d*", "…", repr(lock))

    ours, theirs = kind(), original()
    assert told(theirs) == told(ours)
    with ours, theirs:
        assert told(theirs) == told(ours)
    names = [(cls.__module__, cls.__qualname__, cls.__name__) for cls in (type(ours), type(theirs))]
    assert names[0] == names[1]
    with pytest.raises(TypeError, match="cannot pickle"):
        copy.deepcopy(ours)


@pytest.mark.parametrize("kind", PLAIN)
def test_statistics_of_a_lock(virtual, kind):
    def root():
        lock = kind()
        before = lock.statistics()
        lock.acquire()
        with ThreadGroup() as group:
            group.spawn(lock.acquire)
            during = lock.statistics()
            lock.release()
        return before, during

    assert (LockStatistics(False, None, 0), LockStatistics(True, None, 1)) == virtual(root)


@pytest.mark.parametrize("kind", [Lock, RLock])
def test_acquiring_a_free_lock_in_a_cancelled_scope_raises_and_leaves_it_free(virtual, kind):
    def root():
        lock = kind()
        with CancelScope() as scope:
            scope.cancel()
            with pytest.raises(Cancelled):
                lock.acquire()
            with pytest.raises(Cancelled):
                lock.acquire(timeout=1)
        return lock.locked()

    assert virtual(root) is False


@pytest.mark.parametrize("kind", [StandardLock, StandardRLock, ConditionWaiterLock])
def test_acquiring_a_free_standard_lock_in_a_cancelled_scope_succeeds(virtual, kind):
    def root():
        lock = kind()
        with CancelScope() as scope:
            scope.cancel()
            assert lock.acquire()
            lock.release()
            assert lock.acquire(timeout=1)
            lock.release()
            with lock:
                pass
            assert not scope.cancelled_caught
        assert not scope.cancelled_caught

    virtual(root)


@pytest.mark.parametrize("kind", [StandardLock, StandardRLock])
def test_waiting_for_a_standard_lock_in_a_cancelled_scope_raises(virtual, kind):
    def root():
        lock = kind()
        lock.acquire()

        def waiter():
            with CancelScope() as scope:
                scope.cancel()
                lock.acquire()
            return scope.cancelled_caught

        assert elsewhere(waiter)
        return lock.statistics().waiting

    assert 0 == virtual(root)


@pytest.mark.parametrize("kind", LOCKS)
def test_a_lock_is_fresh_in_the_child_of_a_fork(kind):
    lock = kind()
    lock.acquire()
    lock._at_fork_reinit()
    assert not lock.locked()
    assert lock.acquire(blocking=False)


@pytest.mark.parametrize("kind", LOCKS)
def test_virtual_and_os_threads_exclude_one_another(virtual, kind):
    def root():
        lock, inside = kind(), 0

        def work():
            nonlocal inside
            for _ in range(50):
                with lock:
                    inside += 1
                    assert 1 == inside
                    time.sleep(0)
                    inside -= 1

        with ThreadPoolExecutor(2) as pool, ThreadGroup() as group:
            futures = [pool.submit(work) for _ in range(2)]
            for _ in range(2):
                group.spawn(work)
            until(lambda: all(future.done() for future in futures))
        for future in futures:
            future.result()
        return lock.locked(), lock.statistics().waiting

    assert (False, 0) == virtual(root)


# --- reentrant locks


@pytest.mark.parametrize("kind", REENTRANT)
def test_the_owner_takes_it_again_and_gives_it_back_as_often(virtual, kind):
    def root():
        lock = kind()
        for _ in range(3):
            assert lock.acquire()
        for _ in range(3):
            assert elsewhere(lock.acquire, blocking=False) is False
            lock.release()
        assert not lock.locked()
        with pytest.raises(RuntimeError, match="cannot release un-acquired lock"):
            lock.release()

    virtual(root)


@pytest.mark.parametrize("kind", REENTRANT)
def test_only_the_owner_may_release(virtual, kind):
    def root():
        lock = kind()
        lock.acquire()
        for call in (elsewhere, in_os_thread):
            with pytest.raises((RuntimeError, ExceptionGroup)) as caught:
                call(lock.release)
            error = caught.value
            error = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
            assert "cannot release un-acquired lock" == str(error)
        lock.release()

    virtual(root)


@pytest.mark.parametrize("kind", REENTRANT)
def test_virtual_threads_of_one_carrier_are_different_owners(virtual, kind):
    def root():
        lock = kind()
        with ThreadGroup() as group:
            first = group.spawn(lambda: lock.acquire(blocking=False))
            second = group.spawn(lambda: lock.acquire(blocking=False))
        return first.result(), second.result(), lock.acquire(blocking=False)

    assert (True, False, False) == virtual(root)


@pytest.mark.parametrize("kind", REENTRANT)
def test_the_root_is_the_owner_that_its_os_thread_was(kind):
    lock = kind()
    lock.acquire()

    def root():
        assert lock._is_owned()
        lock.acquire()
        lock.release()
        assert elsewhere(lock.acquire, blocking=False) is False
        lock.release()

    vthreads.run(root, patch=False)
    assert not lock.locked()


@pytest.mark.parametrize("kind", REENTRANT)
def test_an_rlock_knows_its_owner(virtual, kind):
    def root():
        lock = kind()
        assert LockStatistics(False, None, 0) == lock.statistics()
        lock.acquire()
        lock.acquire()
        me = vthreads.current_thread().ident
        assert LockStatistics(True, me, 0) == lock.statistics()
        assert f"owner={me} count=2" in repr(lock)
        assert (True, 2) == (lock._is_owned(), lock._recursion_count())
        assert (False, 0) == elsewhere(lambda: (lock._is_owned(), lock._recursion_count()))

    virtual(root)


@pytest.mark.parametrize("kind", REENTRANT)
def test_an_rlock_given_up_whole_is_taken_back_as_deep(virtual, kind):
    def root():
        lock = kind()
        with pytest.raises(RuntimeError, match="cannot release un-acquired lock"):
            lock._release_save()
        lock.acquire()
        lock.acquire()
        saved = lock._release_save()
        assert not lock.locked()
        with ThreadGroup() as group:
            group.spawn(lambda: (lock.acquire(), sleep(1), lock.release()))
            with CancelScope() as scope:
                scope.cancel()
                lock._acquire_restore(saved)
                assert 1 == now()
            assert not scope.cancelled_caught
        assert 2 == lock._recursion_count()

    virtual(root)


@pytest.mark.parametrize("kind", REENTRANT)
def test_an_rlock_passes_between_os_and_virtual_threads(virtual, kind):
    def root():
        lock, held, log = kind(), threading.Event(), []

        def os_thread():
            with lock, lock:
                held.set()
                while not lock.statistics().waiting:
                    time.sleep(0)
                log.append("OS thread")

        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(os_thread)
            held.wait(10)
            with lock, lock:
                log.append("virtual thread")
            future.result(10)
        return log

    assert ["OS thread", "virtual thread"] == virtual(root)


# --- the standard library's Condition on our locks


@pytest.fixture
def standard_condition(monkeypatch):
    """Makes what `threading.Condition` is after patching."""
    monkeypatch.setattr(threading, "_allocate_lock", ConditionWaiterLock)
    return lambda lock=None: threading.Condition(lock or StandardRLock())


def standard_wait(condition, log, name, timeout=None):
    with condition:
        if condition.wait(timeout):
            log.append(name)


def notify(condition, n=1):
    # Without a checkpoint or a turn for others in between.
    assert condition.acquire(blocking=False)
    condition.notify(n)
    condition.release()


@pytest.mark.parametrize("kind", [StandardLock, StandardRLock, Lock, RLock])
def test_a_standard_condition_wakes_in_order(virtual, standard_condition, kind, order):
    def root():
        condition, log = standard_condition(kind()), []
        with ThreadGroup() as group:
            for name in range(3):
                group.spawn(standard_wait, condition, log, name)
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
            first = group.spawn(standard_wait, condition, log, "first")
            group.spawn(standard_wait, condition, log, "second")
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
                standard_wait(condition, log, "first")

        with ThreadGroup() as group:
            first = group.spawn(interrupted)
            group.spawn(standard_wait, condition, log, "second")
            first.thread.interrupt()
            notify(condition)
        return log

    assert ["second"] == virtual(root, order=order)


def test_no_notify_is_lost_on_a_waiter_that_timed_out_in_the_same_turn(virtual, standard_condition, order):
    def root():
        condition, log = standard_condition(), []
        with ThreadGroup() as group:
            group.spawn(standard_wait, condition, log, "first", 5)
            group.spawn(standard_wait, condition, log, "second")
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
            first = group.spawn(standard_wait, condition, log, "first", 5)
            second = group.spawn(standard_wait, condition, log, "second", 50)
            third = group.spawn(standard_wait, condition, log, "third")
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
            group.spawn(standard_wait, condition, log, "second")
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
            first = group.spawn(standard_wait, condition, log, "first")
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
            future.result(10)
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
            # In the hands of the other one, and then waited for by the one who held it before.
            assert lock.acquire()
            lock.release()
        return log, lock.locked()

    assert (["waiter"], False) == virtual(root)


# --- our Condition


def test_a_condition_wakes_in_order_and_no_more_than_asked_for(virtual):
    def root():
        condition, log = Condition(), []
        with ThreadGroup() as group:
            for name in range(5):
                group.spawn(standard_wait, condition, log, name)
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
            future = group.spawn(standard_wait, condition, log, "notified")
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
            cancelled = group.spawn(standard_wait, condition, log, 1)
            group.spawn(standard_wait, condition, log, 2)
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
            group.spawn(standard_wait, one, log, "one")
            group.spawn(standard_wait, two, log, "two")
            notify(two)
            sleep(1)
            notify(one)
        return log

    assert ["two", "one"] == virtual(root)


def test_a_condition_says_its_state(virtual):
    assert "<Condition <RLock unlocked waiting=0> waiting=0>" == repr(Condition())


# --- events


def test_an_event_lets_through_until_it_is_cleared(virtual):
    def root():
        event = Event()
        assert (False, False) == (event.is_set(), event.wait(1))
        event.set()
        assert (True, True, True) == (event.is_set(), event.wait(), event.wait(0))
        event.clear()
        assert (False, False) == (event.is_set(), event.wait(0))

    virtual(root)


def test_a_set_event_in_a_cancelled_scope_raises(virtual):
    def root():
        event = Event()
        event.set()
        with CancelScope() as scope:
            scope.cancel()
            event.wait()
        return scope.cancelled_caught

    assert virtual(root)


def test_those_who_waited_for_an_event_go_on_even_if_it_is_cleared_at_once(virtual, order):
    def root():
        event, log = Event(), []
        with ThreadGroup() as group:
            for number in range(3):
                group.spawn(lambda number=number: (event.wait(), log.append(number)))
            assert (EventStatistics(False, 3), "<Event unset waiting=3>") == (event.statistics(), repr(event))
            event.set()
            event.clear()
        return sorted(log)

    assert [0, 1, 2] == virtual(root, order=order)


def test_an_event_says_its_state():
    event = Event()
    event.set()
    assert ("<Event set waiting=0>", EventStatistics(True, 0)) == (repr(event), event.statistics())


# --- semaphores


def test_a_semaphore_lets_as_many_in_as_it_has_permits(virtual, order):
    def root():
        permits, inside, most = Semaphore(2), 0, 0

        def worker():
            nonlocal inside, most
            with permits:
                inside += 1
                most = max(most, inside)
                sleep(1)
                inside -= 1

        with ThreadGroup() as group:
            for _ in range(5):
                group.spawn(worker)
            assert SemaphoreStatistics(0, 3) == permits.statistics()
        assert SemaphoreStatistics(2, 0) == permits.statistics()
        return most, now()

    assert (2, 3) == virtual(root, order=order)


def test_a_permit_that_was_given_back_is_handed_over_and_not_taken_by_a_latecomer(virtual):
    def root():
        permits = Semaphore(0)
        with ThreadGroup() as group:
            group.spawn(permits.acquire)
            permits.release()
            return permits.acquire(blocking=False)

    assert virtual(root) is False


def test_several_permits_can_be_given_back_at_once(virtual):
    def root():
        permits, log = Semaphore(0), []
        with ThreadGroup() as group:
            for number in range(3):
                group.spawn(lambda number=number: (permits.acquire(), log.append(number)))
            permits.release(5)
        return log, permits.statistics()

    assert ([0, 1, 2], SemaphoreStatistics(2, 0)) == virtual(root)


def test_semaphores_refuse_what_threading_refuses():
    for kind in (Semaphore, BoundedSemaphore):
        with pytest.raises(ValueError, match="0 permits or more, not -1"):
            kind(-1)
        with pytest.raises(ValueError, match="can't specify timeout for non-blocking acquire"):
            kind().acquire(False, 1)
        for n in (0, -1):
            with pytest.raises(ValueError, match="1 permit or more"):
                kind().release(n)
        assert kind(0).acquire(timeout=-1) is False


def test_a_bounded_semaphore_refuses_more_than_was_taken():
    permits = BoundedSemaphore(2)
    permits.acquire()
    with pytest.raises(ValueError, match="released more often than acquired"):
        permits.release(2)
    assert SemaphoreStatistics(1, 0) == permits.statistics()
    permits.release()
    with pytest.raises(ValueError, match="released more often than acquired"):
        permits.release()


def test_a_semaphore_says_its_state():
    assert "<Semaphore value=3 waiting=0>" == repr(Semaphore(3))
    assert "<BoundedSemaphore value=1 waiting=0>" == repr(BoundedSemaphore())


# --- barriers


def broken(barrier, *args):
    with pytest.raises(BrokenBarrierError):
        barrier.wait(*args)
    return True


def test_a_barrier_opens_for_all_at_once_again_and_again(virtual, order):
    def root():
        barrier, log = Barrier(3), []

        def party():
            for lap in range(3):
                index = barrier.wait()
                log.append((lap, index))

        with ThreadGroup() as group:
            for _ in range(3):
                group.spawn(party)
        assert BarrierStatistics(0, 3, False) == barrier.statistics()
        return log

    log = virtual(root, order=order)
    for lap in range(3):
        assert [(lap, 0), (lap, 1), (lap, 2)] == sorted(log[3 * lap : 3 * lap + 3])


def test_the_action_runs_once_per_lap_before_any_party_goes_on(virtual):
    def root():
        log = []
        barrier = Barrier(2, lambda: log.append("action"))

        def party():
            for _ in range(2):
                barrier.wait()
                log.append("party")

        with ThreadGroup() as group:
            group.spawn(party)
            group.spawn(party)
        return log

    assert ["action", "party", "party"] * 2 == virtual(root)


def test_a_party_that_times_out_breaks_the_barrier(virtual):
    def root():
        barrier = Barrier(3)
        with ThreadGroup() as group:
            others = [group.spawn(broken, barrier, seconds) for seconds in (5, None)]
        assert 5 == now()
        assert barrier.broken
        assert all(other.result() for other in others)
        assert broken(barrier)

    virtual(root)


def test_the_timeout_of_a_barrier_is_the_default_of_wait(virtual):
    def root():
        barrier = Barrier(2, timeout=3)
        broken(barrier)
        assert 3 == now()
        barrier.reset()
        broken(barrier, 4)
        assert 7 == now()

    virtual(root)


def test_a_cancelled_party_breaks_the_barrier(virtual, order):
    def root():
        barrier = Barrier(3)
        with ThreadGroup() as group:
            first = group.spawn(barrier.wait)
            second = group.spawn(broken, barrier)
            first.cancel()
            # At once, not only when the cancelled party has run: it must not count as arrived.
            assert barrier.broken
            assert broken(barrier)
        return first.cancelled(), second.result(), barrier.n_waiting

    assert (True, True, 0) == virtual(root, order=order)


def test_a_party_cancelled_after_the_last_one_came_has_passed(virtual):
    def root():
        barrier, log = Barrier(2), []
        with ThreadGroup() as group:
            first = group.spawn(lambda: log.append(barrier.wait()))
            barrier.wait()
            first.cancel()
        return log, barrier.broken

    assert ([0], False) == virtual(root)


def test_a_failing_action_breaks_the_barrier(virtual):
    def root():
        barrier = Barrier(2, lambda: 1 / 0)
        with ThreadGroup() as group:
            other = group.spawn(broken, barrier)
            with pytest.raises(ZeroDivisionError):
                barrier.wait()
        return other.result(), barrier.broken

    assert (True, True) == virtual(root)


def test_who_comes_while_the_action_runs_is_of_the_next_lap(virtual):
    def root():
        barrier = Barrier(2, lambda: sleep(5))
        with ThreadGroup() as group:
            parties = [group.spawn(barrier.wait) for _ in range(4)]
        return sorted(party.result() for party in parties), now()

    # Both actions take their five seconds at the same time.
    assert ([0, 0, 1, 1], 5) == virtual(root)


def test_who_came_while_an_action_ran_that_failed_gets_a_broken_barrier(virtual):
    def root():
        def action():
            sleep(5)
            raise ValueError("of the action")

        barrier = Barrier(2, action)
        with ThreadGroup() as group:
            first = group.spawn(broken, barrier)

            def last():
                with pytest.raises(ValueError, match="of the action"):
                    barrier.wait()

            group.spawn(last)
            early = group.spawn(broken, barrier)
        return first.result(), early.result(), barrier.statistics()

    assert (True, True, BarrierStatistics(0, 2, True)) == virtual(root)


def test_a_party_that_leaves_while_the_action_runs_breaks_the_barrier(virtual):
    def root():
        barrier = Barrier(2, lambda: sleep(5))
        with ThreadGroup() as group:
            group.spawn(broken, barrier, 3)
            group.spawn(broken, barrier)
        return barrier.broken

    assert virtual(root)


def test_abort_breaks_for_good_and_reset_makes_it_new(virtual):
    def root():
        barrier = Barrier(2)
        for end, stays_broken in ((barrier.abort, True), (barrier.reset, False)):
            with ThreadGroup() as group:
                waiter = group.spawn(broken, barrier)
                end()
            assert waiter.result()
            assert stays_broken is barrier.broken
            barrier.reset()
        with ThreadGroup() as group:
            group.spawn(barrier.wait)
            assert 1 == barrier.wait()

    virtual(root)


def test_a_barrier_of_one_never_waits(virtual):
    def root():
        barrier = Barrier(1)
        return [barrier.wait(), barrier.wait(0)]

    assert [0, 0] == virtual(root)


def test_a_barrier_of_none_is_refused():
    with pytest.raises(ValueError, match="1 party or more, not 0"):
        Barrier(0)


def test_a_barrier_says_its_state(virtual):
    def root():
        barrier = Barrier(2)
        with ThreadGroup() as group:
            group.spawn(broken, barrier)
            assert (2, 1, "<Barrier waiting=1/2>") == (barrier.parties, barrier.n_waiting, repr(barrier))
            barrier.abort()
        assert "<Barrier broken>" == repr(barrier)

    virtual(root)


def test_virtual_and_os_threads_meet_at_a_barrier(virtual):
    def root():
        barrier, log = Barrier(4), []

        def party():
            for lap in range(20):
                barrier.wait()
                log.append(lap)

        with ThreadPoolExecutor(2) as pool, ThreadGroup() as group:
            futures = [pool.submit(party) for _ in range(2)]
            for _ in range(2):
                group.spawn(party)
            until(lambda: all(future.done() for future in futures))
        return log

    assert [lap for lap in range(20) for _ in range(4)] == virtual(root)
