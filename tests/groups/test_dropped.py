"""Blocks that are created and dropped without `with`."""

import gc
import warnings
from contextlib import ExitStack
from math import nan

import pytest

import vthreads
from vthreads.testing import VirtualClock

pytestmark = pytest.mark.usefixtures("collected")

BLOCKS = {
    "CancelScope": (vthreads.CancelScope, "nothing was in it"),
    "fail_after": (lambda: vthreads.fail_after(1), "nothing was in it"),
    "fail_at": (lambda: vthreads.fail_at(1), "nothing was in it"),
    "move_on_after": (lambda: vthreads.move_on_after(1), "nothing was in it"),
    "move_on_at": (lambda: vthreads.move_on_at(1), "nothing was in it"),
    "shield": (lambda: vthreads.shield(1), "nothing was in it"),
    "ThreadGroup": (vthreads.ThreadGroup, "it ran nothing"),
    "Mutex.lock": (vthreads.Mutex("value").lock, "the lock was not acquired"),
    "Mutex.guard": (vthreads.Mutex("value").guard, "the lock was not acquired"),
    "RwLock.read": (vthreads.RwLock("value").read, "the lock was not acquired"),
    "RwLock.write": (vthreads.RwLock("value").write, "the lock was not acquired"),
}
TRY_LOCK = {"Mutex.try_lock": (lambda: vthreads.Mutex("value").try_lock(), "nothing releases the lock")}


@pytest.mark.parametrize(("make", "consequence"), [*BLOCKS.values(), *TRY_LOCK.values()], ids=[*BLOCKS, *TRY_LOCK])
def test_a_block_that_is_dropped_is_reported_where_it_is_dropped(make, consequence):
    def drop():
        make()
        # A group and its scope refer to each other.
        gc.collect()

    with pytest.warns(ResourceWarning) as reported:
        drop()
    (warning,) = reported
    assert f" was dropped without being entered, so {consequence}; use it in a with statement" in str(warning.message)
    assert __file__ == warning.filename


@pytest.mark.parametrize("make", [make for make, _ in BLOCKS.values()], ids=BLOCKS)
def test_a_block_that_is_entered_is_not_reported(make):
    def root():
        with make():
            pass
        with ExitStack() as stack:
            stack.enter_context(make())
        gc.collect()

    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        vthreads.run(root, clock=VirtualClock())


@pytest.mark.parametrize(
    "refused",
    [
        lambda: vthreads.CancelScope(nan),
        lambda: vthreads.CancelScope(cleanup_grace=nan),
        lambda: vthreads.fail_after(nan),
        lambda: vthreads.fail_after(1, cleanup_grace=nan),
        lambda: vthreads.fail_at(nan),
        lambda: vthreads.move_on_after(nan),
        lambda: vthreads.move_on_at(nan),
        lambda: vthreads.shield(nan),
        lambda: vthreads.ThreadGroup(8),
        lambda: vthreads.ThreadGroup(errors="last"),
        lambda: vthreads.ThreadGroup(cleanup_grace=nan),
        lambda: vthreads.Mutex("value").lock("soon"),
    ],
)
def test_what_was_refused_is_not_reported_as_well(refused):
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        with pytest.raises((TypeError, ValueError)):
            refused()
        gc.collect()


def test_a_map_without_a_step_is_reported_because_it_called_nothing():
    """`pool.map` of an executor and of gevent calls the function for each item even if no code uses the results."""
    called = []

    def root():
        with pytest.warns(ResourceWarning) as reported:
            vthreads.map(called.append, [1, 2])
        return reported.list

    (warning,) = vthreads.run(root, clock=VirtualClock())
    assert "was dropped before its first step, so it called nothing; use it in a loop" in str(warning.message)
    assert (__file__, []) == (warning.filename, called)


def close(results):
    results.close()


@pytest.mark.parametrize("end", [list, close, next], ids=["consumed", "closed", "begun"])
def test_a_map_that_was_used_is_not_reported(end):
    def root():
        end(vthreads.map(str, range(3)))

    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        vthreads.run(root, clock=VirtualClock())


def test_a_map_that_a_cancellation_kept_from_its_first_step_is_not_reported():
    def root():
        with vthreads.CancelScope() as scope:
            results = vthreads.map(str, range(3))
            scope.cancel()
            vthreads.checkpoint()
            list(results)

    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        vthreads.run(root, clock=VirtualClock())


def test_the_scopes_of_a_map_and_of_a_runtime_are_not_reported():
    def root():
        vthreads.spawn(vthreads.sleep, 1)
        return list(vthreads.map(str, range(3)))

    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        assert ["0", "1", "2"] == vthreads.run(root, clock=VirtualClock())
        gc.collect()


def test_a_lock_that_could_not_be_had_in_time_is_not_reported():
    def root():
        mutex = vthreads.Mutex("value")
        with mutex.lock(), pytest.raises(TimeoutError), vthreads.ThreadGroup(errors="first") as group:
            group.spawn(lambda: mutex.lock(0).__enter__())

    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        vthreads.run(root, clock=VirtualClock())
