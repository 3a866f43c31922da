"""Runs of `explore` that do not end: deadlocks, loops, what pins the OS thread; and how a failure ends the others."""

import queue
import subprocess
import sys
import threading
import time
from _thread import allocate_lock
from types import FunctionType

import pytest

import vthreads
from tests.testing.exploring import STRATEGIES, failure_of, run_threads
from vthreads.testing import ScheduleFailed, explore, replay

pytestmark = pytest.mark.usefixtures("patched_once")


def test_a_deadlock_is_told_with_who_waits_for_whom_and_where_the_locks_were_taken():
    def two_locks():
        left, right = threading.Lock(), threading.RLock()

        def one():
            with left:
                with right:
                    pass

        def other():
            with right:
                with left:
                    pass

        threads = [threading.Thread(target=one, name="one"), threading.Thread(target=other, name="other")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    for points in ("checkpoints", "lines", "opcodes"):
        failed = failure_of(two_locks, points=points)
        assert "deadlock" == failed.kind
        assert isinstance(failed.__cause__, vthreads.DeadlockError)
        message = str(failed)
        assert "'one' waits for 'other' waits for 'one'" in message or (
            "'other' waits for 'one' waits for 'other'" in message
        )
        assert "held by 'other', acquired at" in message
        assert "in other: with right:" in message


def test_a_thread_that_waits_for_its_own_lock_is_told():
    def twice():
        lock = threading.Lock()
        with lock, lock:
            pass

    assert "'MainThread' waits for 'MainThread'" in str(failure_of(twice))


def test_a_thread_that_waits_for_ever_after_the_function_has_returned_is_told():
    def leaves_a_consumer_behind():
        items = queue.Queue()
        threading.Thread(target=items.get, name="consumer").start()

    failed = failure_of(leaves_a_consumer_behind)
    assert "deadlock" == failed.kind
    assert "'consumer' waits" in str(failed)


def test_a_daemon_may_wait_for_ever():
    def leaves_a_daemon_behind():
        items = queue.Queue()
        threading.Thread(target=items.get, daemon=True).start()

    assert 20 == explore(leaves_a_daemon_behind, schedules=20).schedules


def test_a_thread_that_ends_later_than_the_function_is_waited_for():
    ended = []

    def leaves_a_thread_behind():
        threading.Thread(target=lambda: time.sleep(60) or ended.append(1)).start()

    explore(leaves_a_thread_behind, schedules=20)
    assert 20 == len(ended)


@pytest.mark.parametrize("points", ["lines", "opcodes"])
def test_a_loop_that_nobody_ends_is_told(points):
    def waits_in_a_loop():
        done = []

        def loop():
            while not done:
                pass

        run_threads(loop, loop)

    failed = failure_of(waits_in_a_loop, points=points, max_points=2_000)
    assert "does not end" == failed.kind
    assert "in loop: " in str(failed)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_loop_that_somebody_ends_is_fine(strategy):
    def waits_in_a_loop():
        done = []

        def loop():
            while not done:
                time.sleep(0)

        run_threads(loop, lambda: done.append(1))

    assert explore(waits_in_a_loop, seed=1, strategy=strategy, schedules=100)


def waits_in_a_loop_without_a_pause(then=lambda: None):
    done = []

    def loop():
        while not done:
            pass

    run_threads(loop, lambda: done.append(1))
    then()


@pytest.mark.parametrize("strategy", ["pct", "exhaustive"])
def test_a_loop_without_a_pause_is_fine_if_somebody_ends_it(strategy):
    assert explore(waits_in_a_loop_without_a_pause, seed=1, strategy=strategy, schedules=100)


def test_a_schedule_in_which_a_loop_gave_way_is_replayed():
    def fails():
        waits_in_a_loop_without_a_pause(then=lambda: 1 / 0)

    failed = failure_of(fails, strategy="exhaustive", shrink=False)
    assert failed.reproducible
    assert 1 == failed.schedules
    assert 1 == len(failed.schedule.switches)
    with pytest.raises(ScheduleFailed) as again:
        replay(fails, failed.schedule)
    assert isinstance(again.value.__cause__, ZeroDivisionError)


@pytest.mark.thorough
@pytest.mark.everywhere
def test_what_a_loop_gives_way_to_is_part_of_all_further_schedules():
    ends = []

    def two_loops():
        order = []

        def loop(name):
            while not order:
                pass
            order.append(name)

        run_threads(lambda: loop("a"), lambda: loop("b"), lambda: order.append("c"))
        ends.append(tuple(order))

    made = explore(two_loops, strategy="exhaustive", points="lines", schedules=60)
    assert made.schedules == made.distinct == len(ends)


@pytest.mark.parametrize("points", ["lines", "opcodes"])
def test_a_loop_that_touches_only_its_own_variables_is_stopped(points):
    def waits_in_a_loop():
        def loop(done):
            # fmt: off
            while not done: pass  # noqa: E701  # in one line, which is begun only once
            # fmt: on

        done = []
        run_threads(lambda: loop(done), lambda: done.append(1))

    assert explore(waits_in_a_loop, points=points, seed=1, schedules=100, max_seconds=5)


def test_an_empty_loop_is_told():
    def goes_round():
        while True:
            pass

    assert "does not end" == failure_of(goes_round, max_points=1_000, max_seconds=5).kind


def spins():
    done = []

    def loop():
        while not done:
            pass

    thread = threading.Thread(target=loop, name="spinner")
    thread.start()
    done.append(1)
    thread.join()


def test_a_loop_without_a_point_is_told_with_its_place():
    failed = failure_of(spins, points="checkpoints", max_seconds=0.3)
    assert "pinned" == failed.kind
    report = str(failed)
    assert "'spinner' is at" in report
    # Which of the two it is found at differs between versions of Python.
    assert "in loop\n    while not done:" in report or "in loop\n    pass" in report
    assert 'pass points="lines"' in report
    assert "'spinner' does not leave" in report


def test_a_loop_without_a_point_is_left_on_another_os_thread():
    def root():
        return failure_of(spins, points="checkpoints", max_seconds=0.3)

    assert "pinned" == vthreads.run(root).kind


def test_a_thread_that_goes_back_into_its_loop_is_left_as_well():
    def loops_twice():
        for _ in range(2):
            try:
                while True:
                    pass
            except BaseException:
                pass

    assert "pinned" == failure_of(loops_twice, points="checkpoints", max_seconds=0.3).kind


def test_a_call_on_another_os_thread_that_does_not_end_is_told():
    def waits_for_it():
        gate = allocate_lock()
        gate.acquire()
        try:
            vthreads.offload(gate.acquire)
        finally:
            gate.release()

    failed = failure_of(waits_for_it, max_seconds=0.3)
    assert "pinned" == failed.kind
    assert "a call on another OS thread is waited for" in str(failed)


def test_whoever_debugs_takes_the_time_that_it_takes():
    wait = FunctionType((lambda lock: lock.acquire(timeout=0.5)).__code__, {"__name__": "pdb"})

    def is_debugged():
        lock = allocate_lock()
        lock.acquire()
        wait(lock)

    assert 1 == explore(is_debugged, schedules=1, max_seconds=0.1).schedules


WITHOUT_END = """
import threading, _thread
from vthreads.testing import explore
locks = [_thread.allocate_lock()]
locks[0].acquire()
_thread.start_new_thread(explore, (lambda: locks[0].acquire(),), {"max_seconds": 0.2})
_thread.allocate_lock().acquire() and locks[0].acquire()
"""


def test_what_cannot_be_left_is_told_on_stderr():
    with subprocess.Popen([sys.executable, "-c", WITHOUT_END], stderr=subprocess.PIPE, text=True) as there:
        warning, leftover, told = (there.stderr.readline() for _ in range(3))
        there.kill()
    # The lock that the run waits for is held while `explore` patches. No frame of the program called `explore`.
    assert warning.startswith("vthreads:0: RuntimeWarning: vthreads could not exchange these objects")
    assert "held by a thread; in __main__.locks" in leftover
    assert told.startswith("vthreads.testing.explore cannot end this: the run neither ends nor passes a point")


def test_an_impossible_number_of_seconds_is_refused():
    with pytest.raises(ValueError, match="max_seconds must be > 0 seconds, got 0"):
        explore(lambda: None, max_seconds=0)


def test_a_failure_ends_who_holds_on_to_a_lock_that_others_wait_for():
    def fails_while_others_wait():
        changed, lock = threading.Condition(), threading.Lock()

        def waits_for_a_notify():
            with changed:
                changed.wait()

        def keeps():
            lock.acquire()
            with changed:
                changed.notify()
                lock.acquire()

        run_threads(waits_for_a_notify, keeps)

    assert "deadlock" == failure_of(fails_while_others_wait, schedules=50).kind


def is_released(view):
    try:
        view.tobytes()
    except ValueError:
        return True
    return False


def leaves_at_its_end(views):
    with memoryview(b"x") as view:
        views.append(view)
        len(view)


def leaves_by_return(views):
    with memoryview(b"x") as view:
        views.append(view)
        return len(view)


def leaves_two_by_return(views):
    with memoryview(b"x") as view, memoryview(b"y") as other:
        views += [view, other]
        return len(view)


def leaves_by_continue(views):
    for _ in range(2):
        with memoryview(b"x") as view:
            views.append(view)
            if views:
                continue
            len(views)


@pytest.mark.sampled(1)
@pytest.mark.everywhere
@pytest.mark.parametrize("points", ["lines", "opcodes"])
@pytest.mark.parametrize("leaves", [leaves_at_its_end, leaves_by_return, leaves_two_by_return, leaves_by_continue])
def test_a_failure_ends_no_thread_between_a_block_and_its_exit(leaves, points):
    # The `__exit__` of a memoryview is C code, which is entered without a point.
    views = []

    def opens():
        leaves(views)

    def fails_beside_it():
        threading.Thread(target=opens).start()
        len(views)
        raise LookupError

    for seed in range(4):
        assert "error" == failure_of(fails_beside_it, seed=seed, points=points).kind
    assert views
    assert [] == [view for view in views if not is_released(view)]


def test_threads_end_that_go_on_after_their_cancellation():
    def swallows_everything():
        entered = threading.Barrier(2)

        def loop():
            entered.wait()
            swallowed = 0
            while swallowed < 3:
                try:
                    threading.Event().wait()
                except BaseException:
                    swallowed += 1

        run_threads(loop, loop)

    assert "deadlock" == failure_of(swallows_everything, max_points=1_000).kind
