"""`explore` reports a failing schedule that has as few switches as it finds."""

import pytest

from tests.testing.exploring import failure_of, races, run_threads

pytestmark = pytest.mark.usefixtures("patched_once")


def test_a_failing_schedule_is_shrunk_to_the_switch_that_matters():
    shrunk, found = [], []
    for program in (races.check_then_act, races.double_checked_locking, races.aba):
        failed = failure_of(program)
        shrunk.append(len(failed.schedule.switches))
        found.append(len(failed.found.switches))
    assert [1, 1, 1] == shrunk
    assert max(found) > 5


@pytest.mark.parametrize(
    ("name", "seed"),
    [
        ("dining philosophers", 0),
        pytest.param("dining philosophers", 3, marks=pytest.mark.thorough),
        pytest.param("bounded buffer, `if` for `while`", 1, marks=pytest.mark.thorough),
        pytest.param("bounded buffer, `if` for `while`", 5, marks=pytest.mark.thorough),
        pytest.param("urllib3 `PoolManager` (#204)", 3, marks=pytest.mark.thorough),
    ],
)
def test_shrinking_ends_at_the_least_number_of_switches(name, seed):
    assert 2 == len(failure_of(races.RACES[name][0], seed=seed).schedule.switches)


@pytest.mark.parametrize(("strategy", "seed"), [("pct", 16), ("random", 31)])
def test_shrinking_goes_on_if_no_schedule_with_one_switch_less_fails(strategy, seed):
    def alternating():
        step, seen = [0], []

        def first():
            if step[0] == 0:
                step[0] = 1
            if step[0] == 2:
                step[0] = 3

        def second():
            if step[0] == 1:
                step[0] = 2
            if step[0] == 3:
                seen.append(step[0])

        run_threads(first, second)
        assert not seen

    # The exploration finds a schedule with four switches, and no similar one with three fails.
    failed = failure_of(alternating, strategy=strategy, seed=seed, schedules=2_000)
    assert 2 == len(failed.schedule.switches)
