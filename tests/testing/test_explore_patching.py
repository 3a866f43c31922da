"""`explore` patches the standard library, also what was made before, and leaves the process as it was."""

import gc
import multiprocessing.pool
import random
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import vthreads
from tests.testing.exploring import failure_of, races, run_threads
from vthreads import _patching as patching
from vthreads.testing import ScheduleFailed, explore, replay

pytestmark = pytest.mark.unpatched


@pytest.mark.thorough
@pytest.mark.everywhere
@pytest.mark.parametrize("is_used", [False, True])
def test_a_pool_that_was_made_before_is_explored(is_used):
    # Issue 10: it waited by a queue that blocks the OS thread, or for workers of a run that was over.
    vthreads.unpatch()
    with ThreadPoolExecutor(2) as pool:
        if is_used:
            pool.submit(int).result()
        threads, queue_ = set(pool._threads), pool._work_queue

        def adds():
            total = [0]

            def add(_):
                total[0] += 1

            list(pool.map(add, range(3)))
            assert 3 == total[0]

        def adds_in_turn():
            assert [0, 1, 2] == list(pool.map(int, range(3)))

        assert 50 == explore(adds_in_turn, seed=1, schedules=50, max_seconds=5).schedules
        assert "error" == failure_of(adds, max_seconds=5).kind
        assert (threads, queue_) == (pool._threads, pool._work_queue)
        assert 1 == pool.submit(int, 1).result()


@pytest.mark.sampled(1)
@pytest.mark.everywhere
@pytest.mark.parametrize("call", ["map", "imap", "imap_unordered"])
def test_a_pool_of_multiprocessing_that_was_made_before_is_explored(call):
    vthreads.unpatch()
    with multiprocessing.pool.ThreadPool(2) as pool:
        assert [0, 1] == pool.map(int, range(2))
        before = dict(vars(pool))
        explores_pool(lambda function: list(getattr(pool, call)(function, range(3))))
        assert before == vars(pool)
        assert [0, 1] == pool.map(int, range(2))
    # Otherwise the garbage collector closes the pipe.
    pool._change_notifier.close()


@pytest.mark.sampled(1)
@pytest.mark.everywhere
def test_a_pool_of_multiprocessing_that_is_made_in_the_run_is_explored():
    def use(function):
        with multiprocessing.pool.ThreadPool(2) as pool:
            return pool.map(function, range(3))

    vthreads.unpatch()
    explores_pool(use)


def explores_pool(use):
    def adds():
        total = [0]

        def add(_):
            total[0] += 1

        use(add)
        assert 3 == total[0]

    def in_turn():
        assert [0, 1, 2] == sorted(use(int))

    assert 5 == explore(in_turn, seed=1, schedules=5, max_seconds=30).schedules
    assert "error" == failure_of(adds, max_seconds=30, shrink=False).kind


class MadeBefore:
    """Where a program has a lock that it does not make anew for each call."""


@pytest.mark.sampled(1)
@pytest.mark.everywhere
@pytest.mark.parametrize("make", ["Lock", "RLock", "Condition", "Semaphore"])
def test_a_lock_that_was_made_before_is_explored(make):
    vthreads.unpatch()
    MadeBefore.lock = getattr(threading, make)()

    def adds_with_the_lock():
        total = [0]

        def add():
            with MadeBefore.lock:
                total[0] += 1

        run_threads(add, add)
        assert 2 == total[0]

    assert 100 == explore(adds_with_the_lock, seed=1, schedules=100).schedules


@pytest.mark.usefixtures("collected")
def test_a_lock_that_blocks_the_os_thread_is_told_with_its_place():
    vthreads.unpatch()
    # One that stays: a frozenset cannot be given another.
    locks = frozenset([threading.Lock()])

    def adds_with_a_lock_of_the_set():
        def add():
            with next(iter(locks)):
                sum(range(3))

        run_threads(add, add)

    with (
        pytest.warns(RuntimeWarning, match="could not exchange") as warned,
        pytest.raises(ScheduleFailed) as failed,
    ):
        explore(adds_with_a_lock_of_the_set, seed=1, max_seconds=0.3)
    # The warning has the place of the call of `explore`.
    assert [__file__] == [warning.filename for warning in warned]
    assert "pinned" == failed.value.kind
    assert "with next(iter(locks)):" in str(failed.value)
    assert not next(iter(locks)).locked()


@pytest.mark.thorough
@pytest.mark.everywhere
def test_nothing_stays_patched_where_the_warning_of_patching_is_an_error():
    vthreads.unpatch()
    start, sleep = threading.Thread.start, time.sleep
    locks = frozenset([threading.Lock()])
    with pytest.raises(RuntimeWarning, match="could not exchange"):
        explore(lambda: None)
    assert (start, sleep) == (threading.Thread.start, time.sleep)
    assert not patching.state.active
    assert 1 == len(locks)


# --- what stays as it was


@pytest.mark.thorough
@pytest.mark.everywhere
def test_nothing_stays_frozen_for_the_garbage_collector():
    # `conftest.py` has frozen what the tests consist of.
    gc.unfreeze()
    try:
        frozen = gc.get_freeze_count()
        explore(races.no_lost_update, schedules=5)
        assert gc.get_freeze_count() <= frozen
    finally:
        gc.freeze()


@pytest.mark.thorough
@pytest.mark.everywhere
def test_the_process_is_afterwards_as_it_was():
    hook, random_state, names = threading.excepthook, random.getstate(), threading._counter
    kept = {name: vars(threading)[name] for name in ("_start_new_thread", "Lock") if name in vars(threading)}
    before = patching.state.active, patching.state.threads, patching.state.refused
    start, join, acquire = threading.Thread.start, threading.Thread.join, vthreads.Lock.acquire
    monotonic, trace, handler = time.monotonic, sys.gettrace(), signal.getsignal(signal.SIGURG)

    explore(races.no_lost_update, schedules=5)
    with pytest.raises(ScheduleFailed):
        explore(races.lost_update)

    assert hook is threading.excepthook
    assert random_state == random.getstate()
    assert names is threading._counter
    assert kept == {name: vars(threading)[name] for name in kept}
    assert before == (patching.state.active, patching.state.threads, patching.state.refused)
    assert (start, join, acquire) == (threading.Thread.start, threading.Thread.join, vthreads.Lock.acquire)
    assert monotonic is time.monotonic
    assert trace is sys.gettrace()
    assert handler is signal.getsignal(signal.SIGURG)


def test_threads_are_os_threads_again_afterwards():
    vthreads.patch()
    explore(races.no_lost_update, schedules=2)
    idents = []
    thread = threading.Thread(target=lambda: idents.append(threading.get_native_id()))
    thread.start()
    thread.join()
    assert patching.state.active
    assert [threading.get_native_id()] != idents


def test_a_virtual_thread_may_explore():
    def root():
        with pytest.raises(ScheduleFailed) as found:
            explore(races.lost_update, seed=1)
        with pytest.raises(ScheduleFailed) as replayed:
            replay(races.lost_update, found.value.schedule)
        return found.value.kind, replayed.value.kind

    assert ("error", "error") == vthreads.run(root)


def test_an_exploration_inside_another_is_refused():
    def inner():
        explore(races.no_lost_update, schedules=1)

    failed = failure_of(inner)
    assert isinstance(failed.__cause__, RuntimeError)
    assert "an exploration is in progress" in str(failed)
