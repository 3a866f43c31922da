"""`explore` finds failures that only some schedules have, and `replay` repeats them."""

import importlib
import importlib.util
import queue
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import vthreads
from tests.testing.exploring import STRATEGIES, failure_of, races, run_threads
from vthreads.testing import Schedule, ScheduleFailed, explore, replay
from vthreads.testing._explore import user_code

pytestmark = [pytest.mark.everywhere, pytest.mark.usefixtures("patched_once")]


# --- signal handlers


def signalled(handler, program):
    """A program in which `handler` is called while it runs."""

    def fn():
        before = signal.signal(signal.SIGUSR2, handler)
        try:
            sender = threading.Thread(target=signal.raise_signal, args=[signal.SIGUSR2])
            sender.start()
            program()
            sender.join()
        finally:
            signal.signal(signal.SIGUSR2, before)

    return fn


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("points", ["checkpoints", "opcodes"])
def test_a_signal_handler_is_a_thread_of_the_run(strategy, points):
    # Issue 10.
    calls = []

    def fn():
        lock, other, took = threading.RLock(), threading.Lock(), []

        def handler(*_):
            with lock, other:
                took.append("handler")

        def hold():
            with other:
                took.append("holder")

        def program():
            threads = [threading.Thread(target=hold) for _ in range(2)]
            for thread in threads:
                thread.start()
            for _ in range(3):
                with lock:
                    took.append("root")
            for thread in threads:
                thread.join()

        signalled(handler, program)()
        calls.append(took.count("handler"))

    explore(fn, schedules=60, seed=1, strategy=strategy, points=points)
    # The program does not wait for the handler, which may wait for the lock when the program ends.
    assert 1 in calls
    assert set(calls) <= {0, 1}


@pytest.mark.thorough
@pytest.mark.everywhere
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_other_threads_run_while_a_signal_handler_does_but_not_the_one_that_it_interrupts(strategy):
    seen = set()

    def fn():
        steps = []

        def handler(*_):
            steps.append("begin")
            steps.append("end")

        def other():
            steps.append("other")

        def program():
            thread = threading.Thread(target=other)
            thread.start()
            steps.append("root")
            thread.join()

        signalled(handler, program)()
        if "begin" in steps:
            between = steps[steps.index("begin") + 1 : steps.index("end")]
            seen.update(between)

    explore(fn, schedules=300, seed=1, strategy=strategy)
    assert "other" in seen


def test_what_a_signal_handler_raises_is_a_failure_of_the_program():
    def handler(*_):
        raise ArithmeticError("raised in the handler")

    failed = failure_of(signalled(handler, lambda: None), schedules=5)
    assert ("error", ArithmeticError) == (failed.kind, type(failed.__cause__))


# --- known races


ONE_RACE, *MORE_RACES = races.RACES


@pytest.mark.parametrize("name", [ONE_RACE, *(pytest.param(name, marks=pytest.mark.thorough) for name in MORE_RACES)])
@pytest.mark.parametrize("strategy", ["random", pytest.param("pct", marks=pytest.mark.thorough)])
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


@pytest.mark.parametrize(
    "points", ["checkpoints", *(pytest.param(name, marks=pytest.mark.thorough) for name in ("lines", "opcodes"))]
)
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


@pytest.mark.thorough
@pytest.mark.everywhere
def test_one_line_is_not_atomic_at_opcodes_but_at_lines_it_is():
    def add_on_one_line():
        total = [0]

        def add():
            total[0] += 1

        run_threads(add, add)
        assert 2 == total[0]

    assert explore(add_on_one_line, points="lines", seed=1, schedules=300)
    assert failure_of(add_on_one_line, points="opcodes")


def test_a_list_may_change_between_its_look_up_and_the_question_whether_it_is_empty():
    def checks_and_takes():
        items, taken = [1], []

        def take(items):
            if items:
                taken.append(items.pop())

        run_threads(lambda: take(items), items.clear)

    assert isinstance(failure_of(checks_and_takes, max_preemptions=1, strategy="exhaustive").__cause__, IndexError)


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
    assert "keeps state between calls" in str(failed)


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


@pytest.mark.thorough
@pytest.mark.everywhere
def test_pools_of_the_standard_library_are_explored():
    def uses_a_pool():
        total = [0]

        def add(_):
            total[0] += 1

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(add, range(3)))
        assert 3 == total[0]

    assert "total[0] += 1" in str(failure_of(uses_a_pool))


@pytest.mark.parametrize("points", ["checkpoints", "opcodes"])
def test_abandoned_runs_write_nothing(points, capfd, caplog):
    # Issue 10: libraries log that their workers were cancelled, once for each run of the shrinking.
    def two_locks():
        one, other = threading.Lock(), threading.Lock()

        def use(first, second):
            with first:
                try:
                    with second:
                        pass
                except BaseException:
                    print("cancelled")
                    print("cancelled", file=sys.stderr)
                    raise

        with ThreadPoolExecutor(2) as pool:
            futures = [pool.submit(use, one, other), pool.submit(use, other, one)]
            for future in futures:
                future.result()

    streams = sys.stdout, sys.stderr
    assert "deadlock" == failure_of(two_locks, points=points).kind
    assert streams == (sys.stdout, sys.stderr)
    assert ("", "") == tuple(capfd.readouterr())
    assert not caplog.records


INSTALLED = """
import threading

def lost_update():
    total = [0]
    def add():
        total[0] += 1
    threads = [threading.Thread(target=add) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert total == [2]
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A distribution that is installed as a package, and the folder of its project."""
    site, project = tmp_path / "site", tmp_path / "project"
    for folder in (site / "racy", site / "racy_project-1.0.dist-info", project):
        folder.mkdir(parents=True)
    (site / "racy" / "__init__.py").write_text(INSTALLED)
    (site / "racy_project-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: racy-project\nVersion: 1.0\n"
    )
    (site / "racy_project-1.0.dist-info" / "RECORD").write_text("racy/__init__.py,,\n")
    (project / "pyproject.toml").write_text('[project]\nname = "racy-project"\n')
    monkeypatch.syspath_prepend(str(site))
    packages = (f"{site}/",)
    monkeypatch.setattr("vthreads.testing._explore.user_code.PACKAGES", packages)
    monkeypatch.setattr("vthreads.testing._explore.user_code.FOREIGN", (*user_code.FOREIGN, *packages))
    yield project
    sys.modules.pop("racy", None)


def function_in(file, name):
    """A function of a test in `file`."""
    names = {"__file__": str(file), "__name__": name}
    exec("def test():\n    import racy\n    racy.lost_update()\n", names)
    return names["test"]


def test_the_distribution_of_the_test_is_stopped_where_it_is_installed(installed):
    assert "total[0] += 1" in str(failure_of(function_in(installed / "tests" / "test_it.py", "test_it")))


def test_the_distribution_of_the_function_is_stopped_where_it_is_installed(installed):
    assert "total[0] += 1" in str(failure_of(importlib.import_module("racy").lost_update))


def test_an_installed_package_that_is_not_stopped_is_reported(installed):
    test = function_in(installed.parent / "test_it.py", "test_it")
    made = explore(test, seed=1, schedules=20)
    assert ("racy",) == made.passed_over
    assert "not stopped at lines or instructions: racy" in str(made)
    assert "total[0] += 1" in str(failure_of(test, modules=["racy"]))


def test_the_frames_of_a_failure_are_those_of_the_program():
    failed = failure_of(races.lost_update)
    files = [frame.filename for frame in traceback.extract_tb(failed.__cause__.__traceback__)]
    assert files
    assert not [file for file in files if "/vthreads/testing/" in file or "/vthreads/_core/" in file]


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


@pytest.mark.thorough
@pytest.mark.everywhere
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
    with pytest.raises(ValueError, match=r"schedule|pass one of"):
        replay(lambda: None, text)


def test_a_schedule_that_does_not_fail_is_replayed_quietly():
    replay(races.lost_update, "opcodes:")


def test_unknown_strategies_and_points_are_refused():
    with pytest.raises(ValueError, match="strategy='best'"):
        explore(lambda: None, strategy="best")
    with pytest.raises(ValueError, match="points='bytes'"):
        explore(lambda: None, points="bytes")
