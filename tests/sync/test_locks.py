"""Locks, plain and reentrant: guarantees beyond the common ones of `test_waiting`."""

from __future__ import annotations

import copy
import re
import threading
import time
from _thread import RLock as PlainRLock
from _thread import allocate_lock as plain_lock
from concurrent.futures import ThreadPoolExecutor

import pytest

import vthreads
from vthreads import Cancelled, CancelScope, ThreadGroup, now, sleep
from vthreads._calls.standard_locks import ConditionWaiterLock, StandardLock, StandardRLock
from vthreads._sync.locks import Lock, RLock
from vthreads._sync.statistics import LockStatistics

pytestmark = pytest.mark.unpatched

PLAIN = [Lock, StandardLock, ConditionWaiterLock]
REENTRANT = [RLock, StandardRLock]
LOCKS = PLAIN + REENTRANT


def until(condition):
    while not condition():
        sleep(0)
        time.sleep(0)


def elsewhere(call, *args, **keywords):
    """Call it in a new virtual thread."""
    with ThreadGroup() as group:
        future = group.spawn(call, *args, **keywords)
    return future.result()


def in_os_thread(call, *args, **keywords):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call, *args, **keywords).result()


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
        # A thread that has had the lock queues again behind the others.
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
        # The locks of the standard library have other words for it in each version of Python.
        with pytest.raises(ValueError, match="timeout value must be "):
            lock.acquire(timeout=-2)
        with pytest.raises(ValueError, match="timeout=nan is not a time"):
            lock.acquire(timeout=float("nan"))
        with pytest.raises(OverflowError):
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
            held.wait()
            with lock, lock:
                log.append("virtual thread")
            future.result()
        return log

    assert ["OS thread", "virtual thread"] == virtual(root)
