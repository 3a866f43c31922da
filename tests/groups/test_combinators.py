"""`gather`, `race` and `first_completed`."""

from __future__ import annotations

import concurrent.futures

import pytest

import vthreads
from tests.sleepers import after, others
from vthreads._combinators import first_completed, gather, race
from vthreads.testing import VirtualClock

pytestmark = pytest.mark.unpatched


def run(root):
    return vthreads.run(root, clock=VirtualClock(outside_patience=0.01), patch=False)


def test_gather_returns_results_in_order():
    def root():
        return gather(lambda: after(2, "a"), lambda: after(1, "b")), gather(), vthreads.now()

    assert (["a", "b"], [], 2) == run(root)


def test_gather_fails_with_the_first_and_cancels_the_others():
    ends = []

    def slow():
        try:
            vthreads.sleep(60)
        finally:
            ends.append(vthreads.now())

    def root():
        gather(slow, lambda: after(1, KeyError("first")))

    with pytest.raises(ExceptionGroup) as caught:
        run(root)
    assert ["KeyError('first')"] == [repr(error) for error in caught.value.exceptions]
    assert [1] == ends


def test_race_returns_the_first_success_and_cancels_the_others():
    def root():
        failing, slow = (lambda: after(1, KeyError())), (lambda: after(60))
        return race(slow, failing, lambda: after(2, "won")), vthreads.now(), others()

    assert ("won", 2, []) == run(root)


def test_race_that_is_won_at_once_starts_no_more():
    started = []

    def root():
        return race(lambda: "won", lambda: started.append(1))

    assert "won" == run(root)
    assert [] == started


def test_race_drops_what_the_losers_raise_in_the_end():
    def loser():
        try:
            vthreads.sleep(60)
        finally:
            raise KeyError

    def root():
        return race(loser, lambda: after(1, "won"))

    assert "won" == run(root)


def test_gather_returns_failures_at_their_places_if_it_is_asked_to():
    def root():
        ended = []

        def thunk(seconds, value):
            ended.append(after(seconds, value))
            return value

        failure = ValueError("second")
        outcomes = gather(lambda: thunk(2, "first"), lambda: after(1, failure), word, return_exceptions=True)
        return outcomes, ended, failure

    def word():
        return "third"

    outcomes, ended, failure = run(root)
    assert ["first", failure, "third"] == outcomes
    assert ["first"] == ended
    assert any("gather" in note for note in failure.__notes__)


def test_gather_returns_that_one_was_cancelled_by_itself():
    def root():
        return gather(lambda: vthreads.current_thread().cancel() or after(1), lambda: "others", return_exceptions=True)

    cancelled, others = run(root)
    assert isinstance(cancelled, concurrent.futures.CancelledError)
    assert "others" == others


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_ends_a_program_is_no_value(error):
    def root():
        gather(lambda: after(1, error()), lambda: after(2), return_exceptions=True)

    with pytest.raises(error):
        run(root)


def test_gather_that_returns_failures_is_cancelled_like_any_other():
    def root():
        with vthreads.move_on_after(1) as scope:
            gather(lambda: after(2), lambda: after(3), return_exceptions=True)
        return scope.cancelled_caught, vthreads.now(), others()

    assert (True, 1, []) == run(root)


def test_race_that_all_lose_fails_with_all_failures_and_where_they_come_from():
    def root():
        race(lambda: after(1, KeyError("a")), lambda: after(2, ValueError("b")))

    with pytest.raises(ExceptionGroup, match="none of the 2 thunks") as caught:
        run(root)
    assert ["KeyError('a')", "ValueError('b')"] == [repr(error) for error in caught.value.exceptions]
    assert "spawned at" in caught.value.exceptions[0].__notes__[0]


@pytest.mark.parametrize("combinator", [race, first_completed])
def test_a_contest_without_contenders_is_refused(combinator):
    with pytest.raises(ValueError, match=combinator.__name__):
        combinator()


@pytest.mark.parametrize("combinator", [race, first_completed])
def test_a_contest_whose_contenders_are_all_cancelled_has_no_outcome(combinator):
    def give_up():
        vthreads.current_thread().cancel()
        vthreads.sleep(1)

    def root():
        with pytest.raises(concurrent.futures.CancelledError):
            combinator(give_up, give_up)

    run(root)


@pytest.mark.parametrize("combinator", [gather, race, first_completed])
def test_cancelled_a_combinator_ends_its_threads(combinator):
    def root():
        with vthreads.move_on_after(1) as scope:
            combinator(lambda: after(60), lambda: after(60))
        return scope.cancelled_caught, vthreads.now(), others()

    assert (True, 1, []) == run(root)


@pytest.mark.parametrize("combinator", [gather, race, first_completed])
def test_a_combinator_lets_a_fatal_exception_through(combinator):
    def root():
        combinator(lambda: after(1, SystemExit(3)), lambda: after(60))

    with pytest.raises(SystemExit):
        run(root)


def test_first_completed_returns_the_first_result():
    def root():
        return first_completed(lambda: after(2, KeyError()), lambda: after(1, "first")), vthreads.now(), others()

    assert ("first", 1, []) == run(root)


def test_first_completed_raises_the_first_failure():
    error = KeyError("first")

    def root():
        first_completed(lambda: after(1, error), lambda: after(2, "late"))

    with pytest.raises(KeyError) as caught:
        run(root)
    assert error is caught.value
