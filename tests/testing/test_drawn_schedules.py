"""Hypothesis draws schedules, and shrinks them together with what else it draws."""

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vthreads
from vthreads.testing import Schedule, ScheduleFailed, replay, schedules


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


def test_schedule_and_arguments_are_shrunk_together():
    failing = []

    @settings(max_examples=300, deadline=None, derandomize=True, database=None)
    @given(schedules(), st.lists(st.integers(0, 100), min_size=2, max_size=3))
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
    assert 1 == len(schedule.switches)
    assert [0, 1] == sorted(amounts)


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
