"""`map`."""

from __future__ import annotations

import concurrent.futures
import contextvars
import gc
import itertools
import subprocess
import sys
import threading

import pytest

import vthreads
from tests.sleepers import after, others
from vthreads import ThreadGroup
from vthreads._mapping import map
from vthreads.errors import Cancelled, GroupClosed
from vthreads.testing import VirtualClock

pytestmark = pytest.mark.unpatched


def run(root):
    return vthreads.run(root, clock=VirtualClock(outside_patience=0.01), patch=False)


class Source:
    """Infinite; records the items that were taken."""

    def __init__(self):
        self.taken = 0

    def __iter__(self):
        return self

    def __next__(self):
        self.taken += 1
        return self.taken - 1


class Workload:
    """A function that runs for a second and records how many calls run at once and how they end."""

    def __init__(self):
        self.running = 0
        self.most = 0
        self.cancelled = []

    def __call__(self, number):
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            vthreads.sleep(1)
        except Cancelled:
            self.cancelled.append(number)
            raise
        finally:
            self.running -= 1
        return number * 10


def test_map_yields_in_order():
    def root():
        return list(map(lambda seconds: after(seconds, seconds), [3, 1, 2])), vthreads.now()

    assert ([3, 1, 2], 3) == run(root)


def test_map_takes_the_shortest_of_several_iterables():
    assert [3, 5] == run(lambda: list(map(lambda one, other: one + other, [1, 2], itertools.count(2))))


def test_map_does_nothing_before_the_first_step():
    source, workload = Source(), Workload()

    def root():
        results = map(workload, source)
        vthreads.sleep(10)
        results.close()

    run(root)
    assert (0, 0) == (source.taken, workload.most)


@pytest.mark.parametrize("window", [1, 3])
def test_map_runs_no_more_calls_than_allowed_and_takes_no_more_items(window):
    source, workload = Source(), Workload()

    def root():
        results = map(workload, source, max_concurrency=window)
        for step in range(10):
            assert step * 10 == next(results)
            assert source.taken <= step + 1 + window
            # Whatever the consumer does meanwhile, results do not pile up.
            vthreads.sleep(5)
            assert source.taken == step + 1 + window
        return workload.most

    assert window == run(root)


def test_map_without_a_limit_has_one():
    workload = Workload()
    run(lambda: next(map(workload, Source())))
    assert 32 == workload.most


def test_a_result_does_not_wait_for_the_next_item():
    def source():
        yield 1
        vthreads.sleep(60)
        yield 2

    def root():
        return [(result, vthreads.now()) for result in map(lambda number: after(1, number), source())]

    assert [(1, 1), (2, 61)] == run(root)


def test_two_maps_can_be_zipped():
    def root():
        one, other = Workload(), Workload()
        pairs = list(zip(map(one, range(4)), map(other, range(6)), strict=False))
        return pairs, vthreads.now()

    assert ([(0, 0), (10, 10), (20, 20), (30, 30)], 2) == run(root)


def test_maps_can_be_chained():
    def root():
        inner = map(lambda number: after(1, number + 1), range(100), max_concurrency=10)
        return list(itertools.islice(map(lambda number: after(1, number * 2), inner), 3)), vthreads.now()

    assert ([2, 4, 6], 2) == run(root)


def test_a_failing_call_raises_at_its_place_and_cancels_those_behind_it():
    workload = Workload()

    def call(number):
        if number == 2:
            raise KeyError("its own")
        return workload(number)

    def root():
        results, seen = map(call, range(6)), []
        with pytest.raises(KeyError, match="its own"):
            seen.extend(results)
        assert [] == others()
        return seen, list(results), vthreads.now()

    # Those before it have been waited for.
    assert ([0, 10], [], 1) == run(root)
    assert [] == workload.cancelled


def test_map_yields_failures_at_their_places_if_it_is_asked_to():
    def root():
        failures = [ValueError("second"), StopIteration("fourth")]
        items = ["first", failures[0], "third", failures[1], "fifth"]
        outcomes = list(map(lambda item: after(1, item), items, max_concurrency=2, return_exceptions=True))
        return outcomes, items

    outcomes, items = run(root)
    assert items == outcomes


def test_map_yields_that_a_call_was_cancelled_by_itself():
    def call(item):
        if item == 1:
            vthreads.current_thread().cancel()
        return after(1, item)

    def root():
        return list(map(call, range(3), return_exceptions=True))

    first, cancelled, third = run(root)
    assert (0, 2) == (first, third)
    assert isinstance(cancelled, concurrent.futures.CancelledError)


def test_a_failing_source_ends_a_map_that_yields_failures():
    def source():
        yield "first"
        raise ValueError("second")

    def root():
        outcomes = map(lambda item: item, source(), return_exceptions=True)
        assert "first" == next(outcomes)
        with pytest.raises(ValueError, match="second"):
            next(outcomes)
        return list(outcomes)

    assert [] == run(root)


def test_a_map_that_yields_failures_is_closed_with_its_calls():
    def root():
        outcomes = map(lambda item: after(item, item), [1, 60, 60], return_exceptions=True)
        taken = next(outcomes)
        outcomes.close()
        return taken, list(outcomes), vthreads.now(), others()

    assert (1, [], 1, []) == run(root)


def test_a_map_that_yields_failures_does_not_yield_its_own_cancellation():
    def root():
        with vthreads.CancelScope() as scope:
            outcomes = map(lambda item: after(60, item), [1, 2], return_exceptions=True)
            with ThreadGroup() as group:
                group.spawn(after, 1)
                group.spawn(lambda: (after(2), scope.cancel()))
                yielded.extend(outcomes)
        return scope.cancelled_caught

    yielded = []
    assert run(root) is True
    assert [] == yielded


def test_those_behind_a_failing_call_are_cancelled_at_once():
    workload = Workload()

    def call(number):
        return after(0.5, KeyError()) if number == 1 else workload(number)

    def root():
        results = map(call, range(4))
        assert 0 == next(results)
        cancelled = list(workload.cancelled)
        with pytest.raises(KeyError):
            next(results)
        return cancelled

    assert [2, 3] == run(root)


def test_a_failing_source_raises_at_its_place():
    def source():
        yield 1
        yield 2
        raise KeyError("of the source")

    def root():
        results, seen = map(lambda number: after(1, number), source()), []
        with pytest.raises(KeyError, match="of the source"):
            seen.extend(results)
        return seen, others()

    assert ([1, 2], []) == run(root)


def test_a_call_that_raises_stop_iteration_does_not_end_the_map():
    def root():
        return list(map(next, [iter(())]))

    with pytest.raises(RuntimeError, match="StopIteration"):
        run(root)


def test_a_call_that_was_cancelled_alone_raises_at_its_place():
    def call(number):
        vthreads.current_thread().cancel()
        vthreads.sleep(1)

    def root():
        with pytest.raises(concurrent.futures.CancelledError):
            next(map(call, [1]))

    run(root)


def test_cancelled_in_a_step_all_threads_have_ended():
    workload = Workload()

    def root():
        results = map(workload, Source(), max_concurrency=3)
        with vthreads.move_on_after(0.5) as scope:
            next(results)
        return scope.cancelled_caught, others(), list(results), vthreads.now()

    assert (True, [], [], 0.5) == run(root)
    assert [0, 1, 2] == workload.cancelled


def test_interrupted_in_a_step_all_threads_have_ended():
    workload, left = Workload(), []

    def child():
        try:
            next(map(workload, Source(), max_concurrency=3))
        finally:
            left.extend(others())

    def root():
        with ThreadGroup(on_failure="continue") as group:
            future = group.spawn(child)
            future.thread.interrupt(KeyError)
            return type(future.exception())

    assert KeyError is run(root)
    assert [] == left


def test_a_step_in_a_cancelled_scope_starts_nothing():
    source = Source()

    def root():
        results = map(after, source)
        with vthreads.CancelScope() as scope:
            scope.cancel()
            next(results)
        return scope.cancelled_caught, others()

    assert (True, []) == run(root)
    assert 0 == source.taken


def test_closed_all_threads_have_ended():
    def cleanup(number):
        try:
            return after(number, number)
        finally:
            if number:
                vthreads.sleep(1)

    def root():
        results = map(cleanup, [0, 10, 10])
        assert 0 == next(results)
        results.close()
        results.close()
        return others(), list(results), vthreads.now()

    assert ([], [], 1) == run(root)


def test_close_is_no_checkpoint():
    def root():
        results = map(after, [0, 60])
        next(results)
        with vthreads.CancelScope() as scope:
            scope.cancel()
            results.close()
        return scope.cancelled_caught, others()

    assert (False, []) == run(root)


def test_a_call_may_close_its_own_map():
    def root():
        results = map(lambda number: results.close() if number else 0, range(5), max_concurrency=1)
        assert 0 == next(results)
        vthreads.sleep(1)
        return list(results), others()

    assert ([], []) == run(root)


def test_dropped_half_way_the_threads_end():
    workload = Workload()

    def root():
        results = map(workload, Source(), max_concurrency=3)
        next(results)
        del results
        vthreads.sleep(0)
        vthreads.sleep(0)
        return others(), vthreads.now()

    assert ([], 1) == run(root)


def test_dropped_in_a_cycle_the_garbage_collector_ends_the_threads():
    def root():
        results = map(Workload(), Source(), max_concurrency=3)
        next(results)
        cycle = [results]
        cycle.append(cycle)
        del results, cycle
        assert [] != others()
        gc.collect()
        vthreads.sleep(0)
        vthreads.sleep(0)
        return others()

    assert [] == run(root)


def test_a_for_loop_that_is_left_ends_the_threads():
    workload = Workload()

    def loop():
        for result in map(workload, Source(), max_concurrency=3):
            return result
        return None

    def root():
        assert 0 == loop()
        vthreads.sleep(0)
        vthreads.sleep(0)
        return others()

    assert [] == run(root)


def test_no_thread_outlives_the_group_that_map_was_called_in():
    workload = Workload()

    def root():
        with ThreadGroup("around") as group:
            results = map(workload, Source(), max_concurrency=3)
            next(results)
            vthreads.sleep(0.5)
        assert [] == others()
        assert [] == list(group)
        with pytest.raises(GroupClosed, match="'around' has ended"):
            next(results)
        unused = map_in_group()
        with pytest.raises(GroupClosed):
            next(unused)
        return vthreads.now()

    def map_in_group():
        with ThreadGroup():
            return map(workload, Source())

    assert 1.5 == run(root)
    assert [3] == workload.cancelled[:1]


def test_no_thread_outlives_the_runtime():
    workload = Workload()
    kept = []

    def root():
        kept.append(map(workload, Source(), max_concurrency=3))
        next(kept[0])

    run(root)
    assert 0 == workload.running


def test_a_member_goes_on_consuming_after_the_body_has_ended():
    def consume(results):
        return list(itertools.islice(results, 4))

    def root():
        with ThreadGroup() as group:
            own = group.spawn(lambda: consume(map(Workload(), Source(), max_concurrency=1)))
            handed_over = group.spawn(consume, map(Workload(), Source(), max_concurrency=1))
        return own.result(), handed_over.result(), others()

    assert ([0, 10, 20, 30], [0, 10, 20, 30], []) == run(root)


def test_a_map_outlives_the_thread_that_called_it_but_not_its_group():
    workload = Workload()

    def call():
        results = map(workload, Source(), max_concurrency=2)
        return next(results), results

    def root():
        with ThreadGroup() as group:
            first, results = group.spawn(call).result()
            assert (0, 10) == (first, next(results))
        return others()

    assert [] == run(root)


def test_the_scope_of_the_call_cancels_wherever_the_consumer_is():
    def root():
        with ThreadGroup() as group:
            with vthreads.move_on_after(1) as scope:
                results = map(lambda _: after(60), Source(), max_concurrency=2)
                consumer = group.spawn(outcome_of, lambda: next(results))
                vthreads.sleep(2)
            group_ended_at = vthreads.now()
            assert scope.cancelled_caught
            return type(consumer.result()), group_ended_at, others()

    assert (concurrent.futures.CancelledError, 1, []) == run(root)


def outcome_of(thunk):
    try:
        return thunk()
    except Exception as error:
        return error


def test_a_scope_that_was_left_passes_its_map_on():
    workload = Workload()

    def root():
        with vthreads.CancelScope() as outer:
            with vthreads.move_on_after(0.5):
                results = map(workload, Source(), max_concurrency=2)
            assert [0, 10] == [next(results), next(results)]
            # The threads are inside the outer scope, whatever the consumer does.
            with vthreads.shield(None):
                vthreads.sleep(0.5)
                assert 2 == workload.running
                outer.cancel()
                vthreads.sleep(0)
                return workload.running, results

    assert 0 == run(root)[0]


def test_a_shield_that_was_left_shields_its_map_no_more():
    workload = Workload()

    def root():
        with vthreads.CancelScope() as outer:
            with vthreads.shield(None):
                results = map(workload, Source(), max_concurrency=2)
                next(results)
                outer.cancel()
                vthreads.sleep(0.5)
                assert 1 == workload.running
            with vthreads.shield(None):
                vthreads.sleep(0)
                return workload.running, results

    assert 0 == run(root)[0]


def test_a_thread_that_ended_passes_its_map_on():
    workload = Workload()

    def call():
        results = map(workload, Source(), max_concurrency=2)
        next(results)
        return results

    def root():
        with ThreadGroup() as group:
            results = group.spawn(call).result()
            assert 1 == workload.running
            group.cancel()
            with vthreads.shield(None):
                vthreads.sleep(0)
                return workload.running, results

    assert 0 == run(root)[0]


def test_a_cancelled_scope_that_was_left_takes_its_map_with_it():
    def root():
        with vthreads.CancelScope() as scope:
            results = map(after, Source(), max_concurrency=2)
            next(results)
            scope.cancel("over")
        with pytest.raises(GroupClosed, match="over"):
            next(results)
        vthreads.sleep(0)
        return others()

    assert [] == run(root)


def test_calls_spawn_into_the_group_around():
    spawned = []

    def call(number):
        spawned.append(ThreadGroup.current.spawn(after, 60, number))

    def root():
        with ThreadGroup() as group:
            for _ in map(call, range(3)):
                assert ThreadGroup.current is group
        return [future.result() for future in spawned]

    assert [0, 1, 2] == run(root)


def test_calls_see_the_contextvars_of_the_call_of_map():
    variable = contextvars.ContextVar("variable", default="default")

    def root():
        variable.set("at the call")
        results = map(lambda _: variable.get(), range(2))
        variable.set("later")
        return list(results)

    assert ["at the call", "at the call"] == run(root)


def test_failures_tell_where_the_results_were_wanted():
    def root():
        list(map(lambda number: 1 // number, [0]))

    with pytest.raises(ZeroDivisionError) as caught:
        run(root)
    assert __file__ in caught.value.__notes__[0]


def test_results_can_be_taken_by_several_threads():
    def root():
        results = map(Workload(), range(100), max_concurrency=5)
        with ThreadGroup() as group:
            futures = [group.spawn(list, results) for _ in range(3)]
        return sorted(itertools.chain(*(future.result() for future in futures)))

    assert list(range(0, 1000, 10)) == run(root)


def test_results_can_be_taken_by_a_plain_os_thread():
    taken = []

    def root():
        results = map(Workload(), range(20), max_concurrency=5)
        os_thread = threading.Thread(target=lambda: taken.extend(results))
        os_thread.start()
        while os_thread.is_alive():
            vthreads.sleep(1)

    run(root)
    assert list(range(0, 200, 10)) == taken


def test_a_map_can_be_long():
    assert 5_000 == run(lambda: sum(1 for _ in map(int, range(5_000))))


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [((), {}, TypeError), ((3,), {}, TypeError), (([],), {"max_concurrency": 0}, ValueError)],
)
def test_wrong_arguments_are_refused_at_the_call(arguments, options, error):
    def root():
        with pytest.raises(error):
            map(int, *arguments, **options)

    run(root)


@pytest.mark.real
def test_in_the_child_of_a_fork_a_map_yields_no_more_and_holds_nothing_up():
    script = """
import os, vthreads
from vthreads.errors import GroupClosed

def call(number):
    vthreads.sleep(number)
    return number

with vthreads.ThreadGroup() as group:
    results = vthreads.map(call, [0, 0.1, 0.2])
    print(next(results), flush=True)
    child = os.fork()
    if child:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        print(list(results), flush=True)
    else:
        try:
            next(results)
        except GroupClosed:
            print("closed", flush=True)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=200, check=False)
    assert ("0\nclosed\n[0.1, 0.2]\n", "", 0) == (done.stdout, done.stderr, done.returncode)
