"""`wait` and `as_completed`."""

from __future__ import annotations

import concurrent.futures
import gc
import threading

import pytest

import vthreads
from tests.sleepers import after
from vthreads import ThreadGroup
from vthreads._completion import as_completed, wait
from vthreads.testing import VirtualClock

pytestmark = pytest.mark.unpatched

FIRST_COMPLETED, FIRST_EXCEPTION = concurrent.futures.FIRST_COMPLETED, concurrent.futures.FIRST_EXCEPTION


def run(root):
    return vthreads.run(root, clock=VirtualClock(outside_patience=0.01), patch=False)


def foreign(value=None):
    """A future of the standard library, ended if there is a value."""
    future = concurrent.futures.Future()
    if value is not None:
        future.set_result(value)
    return future


# --- wait


def test_wait_returns_when_all_have_ended():
    def root():
        with ThreadGroup() as group:
            futures = [group.spawn(after, seconds) for seconds in (3, 1, 2)]
            result = wait(futures)
            return (result.done, result.not_done, vthreads.now()) == (set(futures), set(), 3)

    assert run(root)


def test_wait_returns_at_its_timeout():
    def root():
        with ThreadGroup() as group:
            early, late = group.spawn(after, 1), group.spawn(after, 3)
            done, not_done = wait([early, late], timeout=2)
            assert 2 == vthreads.now()
            return done == {early}, not_done == {late}

    assert (True, True) == run(root)


def test_wait_returns_when_the_first_has_ended():
    def root():
        with ThreadGroup() as group:
            early, late = group.spawn(after, 1), group.spawn(after, 3)
            result = wait([early, late], return_when=FIRST_COMPLETED)
            return result == ({early}, {late}), vthreads.now()

    assert (True, 1) == run(root)


def test_wait_returns_at_the_first_exception_which_is_still_raised_by_its_group():
    def root():
        with ThreadGroup(on_failure="continue") as group:
            futures = [group.spawn(after, 1), group.spawn(after, 2, KeyError()), group.spawn(after, 3)]
            result = wait(futures, return_when=FIRST_EXCEPTION)
            assert (set(futures[:2]), set(futures[2:])) == result
            assert 2 == vthreads.now()

    with pytest.raises(ExceptionGroup) as caught:
        run(root)
    assert [KeyError] == [type(error) for error in caught.value.exceptions]


def test_wait_takes_one_future_none_and_the_same_twice():
    def root():
        with ThreadGroup() as group:
            future = group.spawn(after, 1)
            assert ({future}, set()) == wait(future)
            assert ({future}, set()) == wait([future, future])
        return wait([]), wait([], return_when=FIRST_COMPLETED)

    assert ((set(), set()), (set(), set())) == run(root)


def test_wait_takes_foreign_futures():
    pending, ended, failed, cancelled = foreign(), foreign(1), foreign(), foreign()
    failed.set_exception(KeyError())
    cancelled.cancel()

    def root():
        with ThreadGroup() as group:
            own = group.spawn(after, 0.01)
            first = wait([pending, ended, failed, cancelled, own], timeout=0)
            assert ({ended, failed, cancelled}, {pending, own}) == first
            os_thread = threading.Timer(0.02, pending.set_result, [2])
            os_thread.start()
            assert {pending, own} == wait([pending, own]).done
            assert ({failed}, {foreign_one}) == wait([failed, foreign_one], return_when=FIRST_EXCEPTION)

    foreign_one = foreign()
    vthreads.run(root, patch=False)


def test_wait_leaves_no_callback_behind():
    pending = foreign()

    def root():
        with ThreadGroup() as group:
            own = group.spawn(after, 60)
            for _ in range(3):
                wait([pending, own], timeout=1)
                next(as_completed([own, pending, foreign(1)]))
            gc.collect()
            callbacks = pending._done_callbacks, own._callbacks
            own.cancel()
        return callbacks

    assert ([], []) == run(root)


def test_wait_is_a_checkpoint_unless_the_timeout_is_0():
    def root():
        with vthreads.CancelScope() as scope:
            scope.cancel()
            assert ({ended}, set()) == wait(ended, timeout=0)
            wait(ended)
        return scope.cancelled_caught

    ended = foreign(1)
    assert run(root)


def test_cancelled_in_wait_nothing_happens_to_the_futures():
    def root():
        with ThreadGroup() as group:
            future = group.spawn(after, 3, "result")
            with vthreads.move_on_after(1) as scope:
                wait(future)
            return scope.cancelled_caught, future.result(), vthreads.now()

    assert (True, "result", 3) == run(root)


def test_wait_refuses_another_condition():
    with pytest.raises(ValueError, match="'SOME'"):
        wait([], return_when="SOME")


def test_wait_and_as_completed_on_a_plain_os_thread_start_no_runtime():
    ended, pending = foreign(1), foreign()
    threading.Timer(0.02, pending.set_result, [2]).start()
    assert {ended, pending} == wait([ended, pending]).done
    assert {1, 2} == {future.result() for future in as_completed([ended, pending])}
    assert ({ended}, set()) == wait(ended, timeout=0.01)
    with pytest.raises(TimeoutError):
        list(as_completed(foreign(), timeout=0.01))
    assert not vthreads._core.current.on_carrier()


def test_a_plain_os_thread_waits_for_virtual_threads():
    results = []

    def root():
        with ThreadGroup() as group:
            futures = [group.spawn(after, seconds, seconds) for seconds in (2, 1)]
            os_thread = threading.Thread(target=lambda: results.extend(f.result() for f in as_completed(futures)))
            os_thread.start()
        os_thread.join()

    run(root)
    assert [1, 2] == sorted(results)


# --- as_completed


def test_as_completed_yields_as_they_end():
    def root():
        with ThreadGroup() as group:
            futures = [group.spawn(after, seconds, seconds) for seconds in (3, 1, 2)]
            return [(future.result(), vthreads.now()) for future in as_completed(futures)]

    assert [(1, 1), (2, 2), (3, 3)] == run(root)


def test_as_completed_yields_each_once_the_ended_first():
    ended = [foreign(1), foreign(2)]

    def root():
        with ThreadGroup() as group:
            late = group.spawn(after, 1, 3)
            return [future.result() for future in as_completed([late, *ended, *ended])]

    assert [1, 2, 3] == run(root)


def test_as_completed_times_out_from_the_call():
    def root():
        with ThreadGroup() as group:
            futures = [group.spawn(after, seconds, seconds) for seconds in (2, 60)]
            steps = as_completed(futures, timeout=3)
            vthreads.sleep(1)
            assert 2 == next(steps).result()
            with pytest.raises(TimeoutError, match="1 of 2"):
                next(steps)
            group.cancel()
        return vthreads.now()

    assert 3 == run(root)


def test_each_step_of_as_completed_is_a_checkpoint():
    def root():
        steps = as_completed([foreign(1), foreign(2)])
        with vthreads.CancelScope() as scope:
            assert 1 == next(steps).result()
            scope.cancel()
            next(steps)
        return scope.cancelled_caught

    assert run(root)
