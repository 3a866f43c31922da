"""Scopes: cancellation, deadlines, checkpoints, and what swallows `Cancelled`."""

import gc
import threading
import warnings
import weakref
from math import inf, nan

import pytest

import vthreads
from tests.core.outcomes import outcome
from vthreads import CancelScope, ThreadGroup, checkpoint, fail_after, move_on_after, remaining, shield, sleep
from vthreads._core.delivery import deferred_delivery
from vthreads._core.wait_queue import WaitQueue
from vthreads.errors import Cancelled, ScopeMisuse

pytestmark = pytest.mark.unpatched


# --- level


def test_every_checkpoint_in_a_cancelled_scope_raises_again(virtual):
    def root():
        with CancelScope() as scope:
            scope.cancel()
            return [outcome(sleep, 1), outcome(checkpoint), outcome(sleep, 0)]

    assert [Cancelled] * 3 == virtual(root)


def test_a_cancelled_scope_absorbs_its_cancellation_and_says_so(virtual):
    def root():
        with CancelScope() as scope:
            scope.cancel()
            sleep(1)
            raise AssertionError("not reached")
        return scope.cancel_called, scope.cancelled_caught, vthreads.now()

    assert (True, True, 0.0) == virtual(root)


def test_a_cancelled_scope_without_a_checkpoint_catches_nothing(virtual):
    def root():
        with CancelScope() as scope:
            scope.cancel()
        return scope.cancel_called, scope.cancelled_caught

    assert (True, False) == virtual(root)


def test_after_a_cancelled_scope_checkpoints_are_quiet_again(virtual):
    def root():
        with CancelScope() as scope:
            scope.cancel()
            sleep(1)
        sleep(1)
        return vthreads.now()

    assert 1.0 == virtual(root)


def test_the_outermost_cancelled_scope_absorbs(virtual):
    def root():
        with CancelScope() as outer, CancelScope() as middle, CancelScope() as inner:
            inner.cancel()
            outer.cancel()
            sleep(1)
        return [scope.cancelled_caught for scope in (outer, middle, inner)]

    assert [True, False, False] == virtual(root)


def test_an_inner_cancelled_scope_leaves_the_outer_one_alone(virtual):
    def root():
        with CancelScope() as outer:
            with CancelScope() as inner:
                inner.cancel()
                sleep(1)
            sleep(1)
        return outer.cancelled_caught, inner.cancelled_caught, vthreads.now()

    assert (False, True, 1.0) == virtual(root)


def test_another_exception_passes_a_cancelled_scope(virtual):
    def root():
        with CancelScope() as scope:
            scope.cancel()
            raise KeyError("body")

    assert KeyError is outcome(virtual, root)


def test_cancelling_unparks_the_thread_inside(virtual):
    def root():
        scope = CancelScope()

        def child():
            with scope:
                sleep(100)
            return vthreads.now()

        with ThreadGroup() as g:
            future = g.spawn(child)
            sleep(1)
            scope.cancel()
        return future.result()

    assert 1.0 == virtual(root)


def test_cancelling_twice_keeps_the_first_reason(virtual):
    def root():
        with CancelScope() as scope:
            scope.cancel("first")
            scope.cancel("second")
            try:
                sleep(1)
            except Cancelled as cancelled:
                return cancelled.reason

    assert "first" == virtual(root)


def test_a_scope_cancelled_before_it_is_entered_is_cancelled_inside(virtual):
    def root():
        scope = CancelScope()
        scope.cancel()
        with scope:
            sleep(1)
        return scope.cancelled_caught

    assert virtual(root) is True


def test_a_scope_entered_inside_a_cancelled_one_is_cancelled(virtual):
    def root():
        with CancelScope() as outer:
            outer.cancel()
            with CancelScope() as inner:
                sleep(1)
            return "not reached"
        return outer.cancelled_caught, inner.cancelled_caught

    assert (True, False) == virtual(root)


def test_children_are_inside_the_scope_of_their_group_and_not_of_their_spawner(virtual):
    def root():
        with ThreadGroup() as g:
            with CancelScope() as scope:
                future = g.spawn(sleep, 5)
                scope.cancel()
        return future.cancelled(), vthreads.now()

    assert (False, 5.0) == virtual(root)


def test_cancelling_from_another_os_thread_reaches_the_thread_inside(virtual):
    def root():
        with CancelScope() as scope:
            canceller = threading.Thread(target=scope.cancel)
            canceller.start()
            try:
                vthreads.current_thread()._park()
            finally:
                canceller.join()
        return scope.cancelled_caught

    assert virtual(root) is True


def test_a_cancel_from_another_os_thread_is_never_lost(virtual):
    # It may come at any instruction of entering and leaving scopes.
    def root():
        for _ in range(300):
            with CancelScope() as outer:
                canceller = threading.Thread(target=outer.cancel)
                canceller.start()
                while True:
                    with CancelScope(), CancelScope():
                        checkpoint()
                    with shield(None):
                        pass
            canceller.join()
            assert outer.cancelled_caught

    virtual(root)


# --- deadlines


def test_a_deadline_cancels_its_scope(virtual):
    def root():
        with CancelScope(vthreads.now() + 5) as scope:
            sleep(3600)
        return scope.cancelled_caught, vthreads.now()

    assert (True, 5.0) == virtual(root)


def test_the_earliest_deadline_of_nested_scopes_counts(virtual):
    def root():
        with move_on_after(5) as outer, move_on_after(10) as inner:
            effective = remaining()
            sleep(3600)
        return effective, outer.cancelled_caught, inner.cancelled_caught, vthreads.now()

    assert (5.0, True, False, 5.0) == virtual(root)


def test_a_past_deadline_is_cancelled_at_the_first_checkpoint(virtual):
    def root():
        with CancelScope(vthreads.now() - 1) as scope:
            reached = True
            checkpoint()
            reached = False
        return reached, scope.cancelled_caught

    assert (True, True) == virtual(root)


def test_a_deadline_that_passes_while_the_thread_runs_is_seen_at_the_next_checkpoint(clock, virtual):
    def root():
        with move_on_after(5) as scope:
            clock.advance(6)
            vthreads.current_thread()._check()
        return scope.cancelled_caught

    assert virtual(root) is True


@pytest.mark.parametrize("before", [None, 5, 1000])
def test_a_deadline_may_be_set_while_the_scope_is_active(virtual, before):
    def root():
        with CancelScope(before) as scope:
            sleep(1)
            scope.deadline = vthreads.now() + 10
            sleep(3600)
        return scope.deadline, vthreads.now()

    assert (11.0, 11.0) == virtual(root)


def test_a_deadline_may_be_taken_back(virtual):
    def root():
        with CancelScope(5) as scope:
            scope.deadline = None
            sleep(100)
        return scope.deadline, scope.cancel_called

    assert (inf, False) == virtual(root)


def test_a_deadline_set_to_the_past_cancels_at_once(virtual):
    def root():
        with CancelScope() as scope:
            scope.deadline = vthreads.now()
            return scope.cancel_called

    assert virtual(root) is True


def test_a_deadline_may_be_set_by_another_thread(virtual):
    def root():
        scope = CancelScope()

        def child():
            with scope:
                sleep(3600)
            return vthreads.now()

        with ThreadGroup() as g:
            future = g.spawn(child)
            scope.deadline = 7
        return future.result()

    assert 7.0 == virtual(root)


def test_a_deadline_may_be_set_by_another_os_thread(virtual):
    def root():
        with CancelScope() as scope:
            setter = threading.Thread(target=lambda: setattr(scope, "deadline", 7))
            setter.start()
            try:
                vthreads.current_thread()._park()
            finally:
                setter.join()
        return scope.cancelled_caught, vthreads.now()

    assert (True, 7.0) == virtual(root)


def test_a_deadline_set_after_the_scope_was_left_does_nothing(virtual):
    def root():
        with CancelScope() as scope:
            pass
        scope.deadline = 1
        sleep(5)
        return scope.cancel_called

    assert virtual(root) is False


@pytest.mark.parametrize(
    "make", [CancelScope, move_on_after, fail_after, vthreads.move_on_at, vthreads.fail_at, shield]
)
def test_a_time_that_is_no_number_is_refused(make):
    with pytest.raises(ValueError, match="not a time"):
        make(nan)


def test_a_deadline_that_is_no_number_is_refused(virtual):
    def root():
        with CancelScope() as scope:
            with pytest.raises(ValueError, match="not a time"):
                scope.deadline = nan

    virtual(root)


@pytest.mark.parametrize("make", [CancelScope, move_on_after, fail_after, vthreads.move_on_at, vthreads.fail_at])
def test_none_is_no_deadline(virtual, make):
    def root():
        with make(None) as scope:
            sleep(10)
            return scope.deadline, remaining()

    assert (inf, inf) == virtual(root)


# --- remaining


def test_remaining_is_infinite_without_a_deadline(virtual):
    assert inf == virtual(remaining)
    assert inf == remaining()


def test_remaining_counts_down_to_zero(virtual, clock):
    def root():
        with move_on_after(5):
            seen = [remaining()]
            sleep(2)
            seen.append(remaining())
            clock.advance(10)
            seen.append(remaining())
        return seen

    assert [5.0, 3.0, 0.0] == virtual(root)


def test_remaining_is_zero_in_a_cancelled_scope(virtual):
    def root():
        with move_on_after(5) as scope:
            scope.cancel()
            return remaining()

    assert 0.0 == virtual(root)


def test_the_deadline_of_a_group_around_counts_for_its_members(virtual):
    def root():
        with move_on_after(5), ThreadGroup() as g:
            return g.spawn(remaining).result()

    assert 5.0 == virtual(root)


# --- misuse


def test_a_scope_is_entered_once(virtual):
    def root():
        with CancelScope() as scope:
            with pytest.raises(ScopeMisuse, match="entered before"):
                scope.__enter__()
        with pytest.raises(ScopeMisuse, match="entered before"):
            scope.__enter__()

    virtual(root)


def test_leaving_a_scope_that_is_not_the_innermost_is_misuse(virtual):
    def root():
        outer, inner = CancelScope(), CancelScope()
        outer.__enter__()
        inner.__enter__()
        with pytest.raises(ScopeMisuse, match="reverse order"):
            outer.__exit__(None, None, None)
        with pytest.raises(ScopeMisuse):
            inner.__exit__(None, None, None)

    virtual(root)


def test_after_misuse_the_thread_is_outside_of_the_scopes(virtual):
    def root():
        def generator():
            with move_on_after(1):
                yield

        with pytest.raises(ScopeMisuse):
            with move_on_after(5):
                left_open = generator()
                next(left_open)
        sleep(100)
        with pytest.raises(ScopeMisuse):
            left_open.close()
        return vthreads.now()

    assert 100.0 == virtual(root)


def test_a_scope_is_left_by_the_thread_that_entered_it(virtual):
    def root():
        with CancelScope() as scope:
            with ThreadGroup() as g:
                answer = g.spawn(outcome, scope.__exit__, None, None, None).result()
        return answer

    assert ScopeMisuse is virtual(root)


def test_a_scope_left_open_by_an_ended_thread_is_closed(virtual):
    def root():
        def forgetful():
            move_on_after(1000).__enter__()

        with ThreadGroup() as g:
            g.spawn(forgetful)
        return len(vthreads.current_thread()._scheduler.timers)

    assert 0 == virtual(root)


def test_threads_of_a_group_left_open_by_an_ended_thread_are_cancelled(virtual):
    def root():
        futures = []

        def forgetful():
            futures.append(ThreadGroup().__enter__().spawn(sleep, 1000))

        with ThreadGroup() as g:
            g.spawn(forgetful)
        sleep(0)
        return futures[0].cancelled(), vthreads.now()

    assert (True, 0.0) == virtual(root)


# --- checkpoints


def test_after_a_millisecond_any_checkpoint_yields(clock, virtual):
    def root():
        log = []
        me = vthreads.current_thread()
        with ThreadGroup() as g:
            g.spawn(lambda: (sleep(0), log.append("other")))
            me._check()
            log.append("within the slice")
            clock.advance(0.001)
            me._check()
            log.append("after the slice")
        return log

    assert ["within the slice", "other", "after the slice"] == virtual(root)


def test_a_cancellation_that_arrives_while_a_checkpoint_yields_is_raised_by_it(clock, virtual):
    def root():
        with CancelScope() as scope, ThreadGroup() as g:
            g.spawn(lambda: (sleep(0), scope.cancel()))
            clock.advance(0.001)
            vthreads.current_thread()._check()
            raise AssertionError("not reached")
        return scope.cancelled_caught

    assert virtual(root) is True


def test_zero_timeouts_are_no_checkpoints(virtual):
    def root():
        with ThreadGroup() as g:
            future = g.spawn(sleep, 1)
            with CancelScope() as scope:
                scope.cancel()
                future.thread.join(0)
                with pytest.raises(TimeoutError):
                    future.result(0)
                with pytest.raises(TimeoutError):
                    future.exception(timeout=0)
                future.thread.join(-1)
                reached = True
        return reached

    assert virtual(root) is True


def test_a_thread_that_was_unparked_before_it_was_cancelled_succeeds(virtual, order):
    def root():
        queue = WaitQueue()
        answers = []

        def waiter():
            me = vthreads.current_thread()
            with CancelScope() as scope:
                scopes.append(scope)
                me._check()
                queue.add(me)
                answers.append(queue.park(me))
                answers.append(outcome(checkpoint))

        scopes = []
        with ThreadGroup() as g:
            g.spawn(waiter)
            queue.unpark_one("granted")
            scopes[0].cancel()
        return answers

    assert ["granted", Cancelled] == virtual(root, order=order)


def test_a_thread_that_was_cancelled_before_it_was_unparked_has_left_the_queue(virtual, order):
    def root():
        queue = WaitQueue()
        answers = []

        def waiter():
            me = vthreads.current_thread()
            me._check()
            queue.add(me)
            answers.append(outcome(queue.park, me))

        with ThreadGroup() as g:
            future = g.spawn(waiter)
            future.cancel()
            answers.append(queue.unpark_one("granted"))
        return answers

    assert [False, Cancelled] == virtual(root, order=order)


def test_deferred_delivery_lets_blocking_calls_finish_in_a_cancelled_scope(virtual):
    def root():
        with CancelScope() as scope:
            scope.cancel()
            with deferred_delivery():
                sleep(5)
                checkpoint()
            finished = vthreads.now()
            return finished, outcome(checkpoint)

    assert (5.0, Cancelled) == virtual(root)


# --- why


def test_a_deadline_is_the_source_of_its_cancellation(virtual):
    def root():
        with move_on_after(1) as scope:
            try:
                sleep(5)
            except Cancelled as cancelled:
                return cancelled.source is scope, cancelled.reason

    source, reason = virtual(root)
    assert source
    assert "the block did not end within 1 s" == reason


def test_a_failed_sibling_is_the_source_of_the_cancellation(virtual):
    def root():
        seen = []

        def bystander():
            try:
                sleep(5)
            except Cancelled as cancelled:
                seen.append((cancelled.source, cancelled.reason))
                raise

        def failing():
            raise KeyError("broken")

        with pytest.raises(ExceptionGroup):
            with ThreadGroup("workers") as g:
                g.spawn(bystander)
                failed = g.spawn(failing).thread
                failed.name = "culprit"
        (source, reason), *more = seen
        return source is failed, reason, more

    source, reason, more = virtual(root)
    assert source
    assert [] == more
    assert "'workers'" in reason
    assert "KeyError: 'broken'" in reason


def test_who_cancels_explicitly_is_the_source(virtual):
    def root():
        def child():
            try:
                sleep(5)
            except Cancelled as cancelled:
                return cancelled

        with ThreadGroup() as g:
            future = g.spawn(child)
            future.thread.cancel("no longer needed")
        cancelled = future.result()
        return cancelled.source is vthreads.current_thread(), cancelled.reason, str(cancelled)

    assert (True, "no longer needed", "no longer needed") == virtual(root)


# --- swallowing


def swallow(times):
    for _ in range(times):
        try:
            sleep(1)
        except BaseException:
            pass


@pytest.mark.usefixtures("collected")
def test_a_swallowed_cancellation_is_warned_about_once_with_its_place(virtual):
    def root():
        with ThreadGroup() as g:
            for _ in range(3):
                g.spawn(swallow, 300)
            g.cancel()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        virtual(root)
    assert [(RuntimeWarning, __file__)] == [(warning.category, warning.filename) for warning in caught]
    assert swallow.__code__.co_firstlineno + 3 == caught[0].lineno
    assert "swallowed Cancelled" in str(caught[0].message)


def test_a_few_swallowed_cancellations_are_nobodys_business(virtual):
    def root():
        with CancelScope() as scope:
            scope.cancel()
            for _ in range(50):
                assert Cancelled is outcome(sleep, 1)

    virtual(root)


def test_a_loop_that_swallows_cancellation_does_not_starve_the_others(virtual):
    def root():
        done = []

        def stubborn():
            while not done:
                try:
                    sleep(1)
                except BaseException:
                    pass

        with ThreadGroup() as g:
            g.spawn(stubborn).cancel()
            g.spawn(lambda: (sleep(0), sleep(0), done.append(True)))
        return done

    assert [True] == virtual(root)


@pytest.mark.parametrize("call", [checkpoint, lambda: sleep(0), lambda: sleep(1), lambda: vthreads.Queue().get()])
def test_a_loop_over_calls_whose_deadline_has_passed_does_not_starve_the_others(clock, virtual, call):
    def root():
        ticks, polls = [], 0

        def ticker():
            while True:
                sleep(0.005)
                ticks.append(vthreads.now())

        with ThreadGroup() as g:
            g.spawn(ticker)
            while len(ticks) < 10:
                with move_on_after(0):
                    call()
                polls += 1
                # As long as a poll takes.
                clock.advance(0.0001)
                assert polls < 10_000
            g.cancel()
        return ticks[-1]

    assert virtual(root) < 0.1


def test_a_shield_that_another_thread_puts_up_after_the_wait_was_withdrawn_is_too_late(virtual):
    inner, seen = [], []

    def member():
        with vthreads.CancelScope() as scope:
            inner.append(scope)
            try:
                vthreads.sleep(60)
            except vthreads.Cancelled:
                seen.append(vthreads.now())
                raise

    def root():
        with ThreadGroup() as group:
            group.spawn(member)
            group.cancel()
            inner[0].shield = True

    virtual(root)
    assert [0.0] == seen


class Kept:
    """Something that a frame refers to."""


def hold(wait):
    """Hold an object in a local variable while `wait()` raises, to check whether it is freed with the frame."""
    kept = Kept()
    held.append(weakref.ref(kept))
    wait()


held: list[weakref.ref] = []


@pytest.mark.parametrize("wait", [lambda: sleep(60), lambda: (sleep(0), sleep(1))], ids=["parked", "at a checkpoint"])
def test_what_cancelled_frames_refer_to_goes_without_the_garbage_collector(virtual, wait):
    def root():
        with move_on_after(0.5) as scope:
            hold(wait)
        with CancelScope() as scope:
            scope.cancel()
            hold(wait)
        with ThreadGroup() as group:
            group.spawn(hold, wait)
            group.cancel()

    held.clear()
    gc.collect()
    gc.disable()
    try:
        virtual(root)
        assert [None] * 3 == [reference() for reference in held]
    finally:
        gc.enable()
