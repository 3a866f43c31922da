"""`explore` finds what goes wrong in some schedules only, and `replay` shows it again."""

import gc
import importlib.util
import queue
import random
import re
import signal
import subprocess
import sys
import threading
import time
from _thread import allocate_lock
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FunctionType

import pytest

import vthreads
from vthreads import patching
from vthreads.testing import Schedule, ScheduleFailed, explore, replay

STRATEGIES = ["random", "pct", "exhaustive"]


def load_races():
    path = Path(__file__).parents[2] / "benchmarks" / "races.py"
    spec = importlib.util.spec_from_file_location("races", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


races = load_races()
run_threads = races.run_threads


def failure_of(fn, **options):
    with pytest.raises(ScheduleFailed) as caught:
        explore(fn, **{"seed": 1, **options})
    return caught.value


# --- known races


@pytest.mark.parametrize("name", races.RACES)
@pytest.mark.parametrize("strategy", ["random", "pct"])
def test_a_known_race_is_found_and_replayed_and_its_mended_version_is_not(name, strategy):
    broken, mended = races.RACES[name]

    failed = failure_of(broken, strategy=strategy, shrink=False)
    assert failed.reproducible
    for schedule in (failed.schedule, str(failed.schedule)):
        with pytest.raises(ScheduleFailed) as again:
            replay(broken, schedule)
        assert failed.kind == again.value.kind
        assert type(failed.__cause__) is type(again.value.__cause__)

    assert 40 == explore(mended, seed=1, strategy=strategy, schedules=40).schedules


def test_a_failing_schedule_is_shrunk_to_the_switch_that_matters():
    shrunk, found = [], []
    for program in (races.check_then_act, races.double_checked_locking, races.aba):
        failed = failure_of(program)
        shrunk.append(len(failed.schedule.switches))
        found.append(len(failed.found.switches))
    assert [1, 1, 1] == shrunk
    assert max(found) > 5


@pytest.mark.parametrize("points", ["lines", "opcodes"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_lost_update_is_found_at_lines_and_at_opcodes(strategy, points):
    def lost_update():
        balance = [0]

        def deposit():
            before = balance[0]
            balance[0] = before + 1

        run_threads(deposit, deposit)
        assert 2 == balance[0]

    failed = failure_of(lost_update, strategy=strategy, points=points)
    assert "error" == failed.kind
    assert points == failed.schedule.points
    assert len(failed.schedule.switches) <= 2
    assert "before = balance[0]" in str(failed) or "balance[0] = before + 1" in str(failed)


@pytest.mark.parametrize("points", ["checkpoints", "lines", "opcodes"])
def test_a_report_has_the_lines_of_a_thread_that_runs_to_its_end(points):
    def numbers_in_order():
        lock, numbers = threading.Lock(), []

        def number():
            with lock:
                size = len(numbers)
            with lock:
                numbers.append(size)

        run_threads(number, number)
        assert [0, 1] == numbers

    report = str(failure_of(numbers_in_order, points=points))
    place = r"\S+test_explore\.py:\d+ in number: .+"
    assert 2 == report.count("runs to its end")
    assert 2 == len(re.findall(rf"runs to its end,( at {place}|\n +from {place}\n +to {place})", report))


def test_one_line_is_not_atomic_at_opcodes_but_at_lines_it_is():
    def add_on_one_line():
        total = [0]

        def add():
            total[0] += 1

        run_threads(add, add)
        assert 2 == total[0]

    assert explore(add_on_one_line, points="lines", seed=1, schedules=300)
    assert failure_of(add_on_one_line, points="opcodes")


# --- deadlocks, and runs that do not end


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
        assert "held by 'other', which took it at" in message
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


def test_a_list_may_change_between_its_look_up_and_the_question_whether_it_is_empty():
    def checks_and_takes():
        items, taken = [1], []

        def take(items):
            if items:
                taken.append(items.pop())

        run_threads(lambda: take(items), items.clear)

    assert isinstance(failure_of(checks_and_takes, max_preemptions=1, strategy="exhaustive").__cause__, IndexError)


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
    assert 'choose points="lines"' in report
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


def test_a_lock_that_blocks_the_os_thread_is_told_with_its_place():
    vthreads.unpatch()
    locks = [threading.Lock()]

    def adds_with_a_lock_of_the_list():
        def add():
            with locks[0]:
                sum(range(3))

        run_threads(add, add)

    failed = failure_of(adds_with_a_lock_of_the_list, max_seconds=0.3)
    assert "pinned" == failed.kind
    assert "with locks[0]:" in str(failed)
    assert not locks[0].locked()


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
        told = there.stderr.readline()
        there.kill()
    assert told.startswith("vthreads.testing.explore cannot end this: the run neither ends nor passes a point")


def test_an_impossible_number_of_seconds_is_refused():
    with pytest.raises(ValueError, match="max_seconds=0"):
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


# --- errors


def test_an_error_in_a_thread_is_a_failure():
    def fails_in_a_thread():
        run_threads(lambda: 1 / 0)

    failed = failure_of(fails_in_a_thread)
    assert "error in a thread" == failed.kind
    assert isinstance(failed.__cause__, ZeroDivisionError)
    assert 1 == failed.exploration.schedules
    assert () == failed.schedule.switches


def test_a_thread_may_end_itself_by_sys_exit():
    assert 10 == explore(lambda: run_threads(sys.exit, lambda: sys.exit(1)), seed=1, schedules=10).schedules


def test_a_program_that_keeps_something_from_run_to_run_is_told():
    calls = []

    def fails_once():
        calls.append(1)
        assert 3 != len(calls)

    failed = failure_of(fails_once)
    assert not failed.reproducible
    assert "keeps something from one call to the next" in str(failed)


def test_ctrl_c_ends_the_exploration():
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        explore(interrupted)


# --- what is explored


def test_all_schedules_of_a_small_program_are_counted_once():
    orders = set()

    def two_steps():
        order = []
        run_threads(lambda: order.append("a"), lambda: order.append("b"))
        orders.add("".join(order))

    made = explore(two_steps, strategy="exhaustive", points="checkpoints")
    assert made.complete
    assert made.schedules == made.distinct
    assert {"ab", "ba"} == orders


def test_the_same_seed_makes_the_same_schedules():
    def trace_of(seed):
        orders = []

        def three_threads():
            order = []
            run_threads(*(lambda name=name: order.append(name) for name in "abc"))
            orders.append("".join(order))

        explore(three_threads, seed=seed, schedules=30)
        return orders

    assert trace_of(5) == trace_of(5)
    assert trace_of(5) != trace_of(6)


def test_either_thread_may_come_first_after_a_start():
    for points in ("checkpoints", "lines", "opcodes"):
        firsts = set()

        def starts_one(firsts=firsts):
            order = []
            thread = threading.Thread(target=lambda: order.append("child"))
            thread.start()
            order.append("parent")
            thread.join()
            firsts.add(order[0])

        explore(starts_one, points=points, seed=1, schedules=50)
        assert {"child", "parent"} == firsts


def test_groups_of_virtual_threads_are_explored_as_well():
    def adds():
        total = 0

        def add():
            nonlocal total
            total += 1

        with vthreads.ThreadGroup() as group:
            group.spawn(add)
            group.spawn(add)
        assert 2 == total

    failed = failure_of(adds)
    assert "error" == failed.kind
    assert "total += 1" in str(failed)


@pytest.mark.parametrize("points", ["checkpoints", "opcodes"])
def test_the_primitives_of_virtual_threads_hold_in_every_order(points):
    def uses_all():
        channel, queue_, done = vthreads.Channel(), vthreads.Queue(1), vthreads.Event()
        balance, most, running = vthreads.Mutex([0]), [0], [0]
        changed, items = vthreads.Condition(), []

        def sends():
            with channel:
                for number in range(3):
                    channel.send(number)

        def forwards():
            for number in channel:
                queue_.put(number)
            done.set()

        def adds():
            running[0] += 1
            most[0] = max(most[0], running[0])
            number = queue_.get()
            with balance.lock() as value:
                value[0] += number
            with changed:
                items.append(number)
                changed.notify()
            running[0] -= 1

        with vthreads.ThreadGroup() as group, vthreads.ThreadGroup(max_concurrency=1) as one_at_a_time:
            group.spawn(sends)
            group.spawn(forwards)
            for _ in range(3):
                one_at_a_time.spawn(adds)
            done.wait()
            with changed:
                while len(items) < 3:
                    changed.wait()
        with balance.lock() as value:
            assert [3] == value
        assert 1 == most[0]

    assert explore(uses_all, points=points, seed=1, schedules=100)


def test_pools_of_the_standard_library_are_explored():
    def uses_a_pool():
        total = [0]

        def add(_):
            total[0] += 1

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(add, range(3)))
        assert 3 == total[0]

    assert "total[0] += 1" in str(failure_of(uses_a_pool))


class MadeBefore:
    """Where a program has a lock that it does not make anew for each call."""


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


def test_the_threads_of_a_pool_have_the_same_names_in_each_run():
    names = set()

    def asks_for_its_name():
        with ThreadPoolExecutor(1) as pool:
            names.add(pool.submit(lambda: threading.current_thread().name).result())

    before = ThreadPoolExecutor._counter
    explore(asks_for_its_name, schedules=10)
    assert {"ThreadPoolExecutor-0_0"} == names
    assert before is ThreadPoolExecutor._counter


def test_only_the_modules_that_are_asked_for_are_stopped():
    made = explore(races.no_lost_update, points="opcodes", modules=["somewhere.else"], seed=1, schedules=50)
    assert made.decisions < explore(races.no_lost_update, points="opcodes", seed=1, schedules=50).decisions
    assert failure_of(races.lost_update, points="opcodes", modules=["races"], schedules=300)


def test_time_is_virtual_and_a_timeout_comes_when_nobody_can_go_on():
    def times_out():
        started = time.monotonic()
        with pytest.raises(queue.Empty):
            queue.Queue().get(timeout=3600)
        assert 3600 == time.monotonic() - started

    assert 10 == explore(times_out, schedules=10).schedules


# --- what stays as it was


def test_nothing_stays_frozen_for_the_garbage_collector():
    frozen = gc.get_freeze_count()
    explore(races.no_lost_update, schedules=5)
    assert gc.get_freeze_count() <= frozen


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
    assert "an exploration is under way" in str(failed)


# --- schedules in writing


IN_ANOTHER_PROCESS = """
import sys
sys.path.insert(0, {directory!r})
import races
from vthreads.testing import ScheduleFailed, replay
for name, schedule in {schedules!r}.items():
    try:
        replay(races.RACES[name][0], schedule)
    except ScheduleFailed as failed:
        print(failed)
    else:
        print(name, "passes")
"""


def test_a_schedule_means_the_same_in_another_process():
    schedules, reports = {}, []
    for name, (broken, _) in races.RACES.items():
        # As it was found, it has more switches, each of which depends on all before.
        schedules[name] = str(failure_of(broken, shrink=False).schedule)
        with pytest.raises(ScheduleFailed) as here:
            replay(broken, schedules[name])
        reports.append(f"{here.value}\n")
    program = IN_ANOTHER_PROCESS.format(directory=str(Path(races.__file__).parent), schedules=schedules)
    there = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert without_addresses("".join(reports)) == without_addresses(there.stdout)


def without_addresses(report):
    return re.sub(r"object at 0x\w+|started \d+", "", report)


@pytest.mark.parametrize("text", ["opcodes:", "lines:3>1", "checkpoints:3>1,40>0"])
def test_a_schedule_is_read_as_it_is_written(text):
    assert text == str(Schedule.parse(text))


@pytest.mark.parametrize("text", ["", "opcodes", "opcodes:3", "opcodes:3>1;4>0", "bytes:3>1"])
def test_what_is_no_schedule_is_refused(text):
    with pytest.raises(ValueError, match=r"schedule|choose one of"):
        replay(lambda: None, text)


def test_a_schedule_that_does_not_fail_is_replayed_quietly():
    replay(races.lost_update, "opcodes:")


def test_unknown_strategies_and_points_are_refused():
    with pytest.raises(ValueError, match="strategy='best'"):
        explore(lambda: None, strategy="best")
    with pytest.raises(ValueError, match="points='bytes'"):
        explore(lambda: None, points="bytes")
