"""Hypothesis draws schedules, and shrinks them together with other values."""

import threading

import pytest
from hypothesis import Phase, given, seed, settings
from hypothesis import strategies as st

import vthreads
from vthreads.testing import Schedule, ScheduleFailed, explore, replay, schedules

pytestmark = pytest.mark.unpatched


def total_of(amounts, lock=None):
    total = [0]

    def add(amount):
        if lock is None:
            total[0] += amount
        else:
            with lock:
                total[0] += amount

    threads = [threading.Thread(target=add, args=(amount,)) for amount in amounts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return total[0]


@pytest.fixture(autouse=True)
def patched_once():
    vthreads.patch(threads=True)
    yield
    vthreads.unpatch()


@pytest.mark.thorough
def test_schedule_and_arguments_are_shrunk_together():
    failing = []

    @settings(max_examples=300, deadline=None, derandomize=True, database=None)
    @given(schedules(max_switches=3), st.lists(st.integers(0, 100), min_size=2, max_size=3))
    def adds_up(schedule, amounts):
        def program():
            assert sum(amounts) == total_of(amounts)

        try:
            replay(program, schedule)
        except ScheduleFailed:
            failing.append((schedule, amounts))
            raise

    with pytest.raises(ScheduleFailed):
        adds_up()
    schedule, amounts = failing[-1]
    assert len(schedule.switches) <= 2
    assert 1 == sum(amounts)


@pytest.mark.parametrize("number", [0, *(pytest.param(number, marks=pytest.mark.thorough) for number in range(1, 6))])
def test_a_lost_update_is_found_whatever_is_drawn_first(number):
    @seed(number)
    @settings(max_examples=100, deadline=None, database=None, phases=[Phase.generate], report_multiple_bugs=False)
    @given(schedules())
    def adds_up(schedule):
        def program():
            assert 3 == total_of([1, 2])

        replay(program, schedule)

    with pytest.raises(ScheduleFailed):
        adds_up()


@pytest.mark.thorough
@pytest.mark.everywhere
def test_a_thread_that_is_drawn_and_cannot_run_stands_for_one_that_can():
    def program():
        assert 3 == total_of([1, 2])

    with pytest.raises(ScheduleFailed) as known:
        explore(program, seed=1)
    (decision, thread), *others = known.value.schedule.switches
    assert [] == others
    # Two threads can run; they are neither the fourth nor the fifth.
    replay(program, Schedule("opcodes", ((decision, 4 + thread),)))
    found = []
    for number in (4, 5):
        try:
            replay(program, Schedule("opcodes", ((decision, number),), wraps=True))
        except ScheduleFailed as failed:
            found.append(str(failed.schedule))
    assert [str(known.value.schedule)] == found


@pytest.mark.thorough
@pytest.mark.everywhere
@settings(max_examples=30, deadline=None, derandomize=True)
@given(schedules(points="lines"))
def test_no_schedule_fails_a_program_without_a_race(schedule):
    def program():
        assert 3 == total_of([1, 2], threading.Lock())

    replay(program, schedule)


@settings(max_examples=50)
@given(schedules(max_switches=3, max_distance=5, threads=2))
def test_what_is_drawn_is_within_the_limits(schedule):
    assert isinstance(schedule, Schedule)
    assert len(schedule.switches) <= 3
    decisions = [decision for decision, _ in schedule.switches]
    assert decisions == sorted(set(decisions))
    assert {thread for _, thread in schedule.switches} <= {0, 1}
    assert all(decision < 18 for decision in decisions)
