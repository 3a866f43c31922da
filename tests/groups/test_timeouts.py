"""`sleep`, and blocks with a time limit."""

from math import nan

import pytest

import vthreads
from vthreads import ThreadGroup, checkpoint, fail_after, fail_at, move_on_after, move_on_at, sleep
from vthreads.errors import Cancelled, ScopeMisuse

pytestmark = pytest.mark.unpatched


def test_sleep_ends_after_its_seconds(virtual):
    assert 3600.0 == virtual(lambda: (sleep(3600), vthreads.now())[1])


@pytest.mark.parametrize("seconds", [-1, nan, -0.001])
def test_sleep_refuses_what_is_no_duration(virtual, seconds):
    with pytest.raises(ValueError, match=r"0 or more seconds|nan is not a time"):
        virtual(sleep, seconds)


def test_sleep_of_zero_lets_the_others_run(virtual):
    def root():
        log = []
        with ThreadGroup() as g:
            g.spawn(lambda: (sleep(0), log.append("other")))
            sleep(0)
            log.append("root")
        return log

    assert ["other", "root"] == virtual(root)


def test_move_on_after_goes_on_after_its_seconds(virtual):
    def root():
        sleep(1)
        with move_on_after(5) as scope:
            sleep(3600)
        return scope.cancelled_caught, vthreads.now()

    assert (True, 6.0) == virtual(root)


def test_seconds_count_from_entering(virtual):
    def root():
        scope = move_on_after(5)
        sleep(10)
        with scope:
            sleep(3600)
        return scope.deadline, vthreads.now()

    assert (15.0, 15.0) == virtual(root)


def test_a_block_that_is_in_time_ends_normally(virtual):
    def root():
        with fail_after(5) as scope:
            sleep(1)
        return scope.cancel_called, scope.cancelled_caught, vthreads.now()

    assert (False, False, 1.0) == virtual(root)


def test_fail_after_raises_the_builtin_timeout_error(virtual):
    def root():
        with pytest.raises(TimeoutError):
            with fail_after(5) as scope:
                sleep(3600)
        return scope.cancelled_caught, vthreads.now()

    assert (True, 5.0) == virtual(root)


def wait_for_an_hour():
    sleep(3600)


def before_its_time():
    return fail_at(vthreads.now() + 5)


def with_another_deadline():
    scope = fail_after(60)
    scope.deadline = vthreads.now() + 5
    return scope


def cancelled_by_hand():
    scope = fail_after(5)
    scope.cancel("enough")
    return scope


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: fail_after(2), r"the block did not end within 2 s"),
        (lambda: fail_after(0.25), r"the block did not end within 0\.25 s"),
        (before_its_time, r"the deadline of <CancelScope .*deadline=5\.000> passed"),
        (with_another_deadline, r"the deadline of <CancelScope .*deadline=5\.000> passed"),
        (cancelled_by_hand, r"enough"),
    ],
)
def test_a_timeout_tells_its_limit_and_where_the_block_was(virtual, make, text):
    def root():
        with make():
            wait_for_an_hour()

    line = wait_for_an_hour.__code__.co_firstlineno + 1
    with pytest.raises(TimeoutError, match=rf"^{text}; it was in wait_for_an_hour, .*test_timeouts\.py:{line}$"):
        virtual(root)


def test_a_timeout_of_a_group_tells_where_its_block_is(virtual):
    def root():
        with fail_after(2), ThreadGroup() as group:
            group.spawn(sleep, 60)

    with pytest.raises(
        TimeoutError, match=r"^the block did not end within 2 s; it was in root, .*test_timeouts\.py:\d+$"
    ):
        virtual(root)


def test_a_cancellation_tells_the_limit(virtual):
    def root():
        with move_on_after(2):
            try:
                sleep(60)
            except Cancelled as error:
                return error.reason

    assert "the block did not end within 2 s" == virtual(root)


@pytest.mark.parametrize("seconds", [0, -1])
def test_no_time_at_all_is_over_at_the_first_checkpoint(virtual, seconds):
    def root():
        with move_on_after(seconds) as scope:
            checkpoint()
        return scope.cancelled_caught

    assert virtual(root) is True


def test_a_block_without_a_checkpoint_does_not_fail_even_if_late(virtual, clock):
    def root():
        with fail_after(5):
            clock.advance(10)
        return "ended"

    assert "ended" == virtual(root)


def test_an_outer_cancellation_is_no_timeout(virtual):
    def root():
        with move_on_after(1) as outer:
            with fail_after(5):
                sleep(3600)
        return outer.cancelled_caught, vthreads.now()

    assert (True, 1.0) == virtual(root)


def test_when_both_are_over_the_outer_one_tells(virtual):
    def root():
        with move_on_after(5) as outer:
            with fail_after(5):
                sleep(3600)
        return outer.cancelled_caught

    assert virtual(root) is True


def test_an_exception_of_the_body_wins_over_the_timeout(virtual):
    def root():
        with fail_after(1):
            try:
                sleep(3600)
            except Cancelled:
                raise KeyError("body") from None

    with pytest.raises(KeyError, match="body"):
        virtual(root)


def test_nested_timeouts_tell_apart_whose_it_was(virtual):
    def root():
        log = []
        with fail_after(10):
            try:
                with fail_after(1):
                    sleep(3600)
            except TimeoutError:
                log.append(vthreads.now())
            sleep(1)
        return log, vthreads.now()

    assert ([1.0], 2.0) == virtual(root)


def test_absolute_deadlines(virtual):
    def root():
        sleep(3)
        with move_on_at(5) as scope:
            sleep(3600)
        with pytest.raises(TimeoutError):
            with fail_at(7):
                sleep(3600)
        return scope.cancelled_caught, vthreads.now()

    assert (True, 7.0) == virtual(root)


def test_a_timeout_around_a_group_is_a_timeout_error(virtual):
    def root():
        with pytest.raises(TimeoutError):
            with fail_after(1), ThreadGroup() as g:
                future = g.spawn(sleep, 60)
        return future.cancelled(), vthreads.now()

    assert (True, 1.0) == virtual(root)


def test_a_failure_in_a_group_wins_over_the_timeout_around_it(virtual):
    def root():
        def failing_in_cleanup():
            try:
                sleep(60)
            finally:
                raise KeyError

        with fail_after(1), ThreadGroup() as g:
            g.spawn(failing_in_cleanup)

    with pytest.raises(ExceptionGroup) as caught:
        virtual(root)
    assert [KeyError] == [type(error) for error in caught.value.exceptions]


def test_a_time_limit_is_used_once(virtual):
    def root():
        limit = move_on_after(1)
        with limit:
            pass
        with pytest.raises(ScopeMisuse):
            with limit:
                pass

    virtual(root)


def test_the_cleanup_grace_may_be_given(virtual):
    def root():
        with move_on_after(1, cleanup_grace=10):
            try:
                sleep(60)
            finally:
                sleep(60)
        return vthreads.now()

    assert 11.0 == virtual(root)


def test_a_time_limit_may_shield(virtual):
    def root():
        with move_on_after(1), move_on_after(5, shield=True) as inner:
            sleep(60)
        return inner.cancelled_caught, vthreads.now()

    assert (True, 5.0) == virtual(root)
