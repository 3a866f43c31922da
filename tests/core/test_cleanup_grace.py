"""The cleanup grace: the time for which blocking calls of a cancelled thread work in its cleanup."""

import contextlib
import weakref

import pytest

import vthreads
from tests.core.outcomes import outcome
from vthreads import CancelScope, ThreadGroup, checkpoint, move_on_after, shield, sleep
from vthreads.errors import Cancelled

pytestmark = pytest.mark.unpatched


def cleanup_by_finally(seconds):
    try:
        sleep(100)
    finally:
        sleep(seconds)


def cleanup_by_except(seconds):
    try:
        sleep(100)
    except Cancelled:
        sleep(seconds)
        raise


def cleanup_by_exit(seconds):
    class Resource:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            sleep(seconds)

    with Resource():
        sleep(100)


def cleanup_by_generator(seconds):
    def generator():
        try:
            yield
        finally:
            sleep(seconds)

    resource = generator()
    next(resource)
    try:
        sleep(100)
    finally:
        resource.close()


def cleanup_behind_another_exception(seconds):
    try:
        sleep(100)
    finally:
        try:
            raise KeyError
        except KeyError:
            sleep(seconds)


def rows(seconds):
    try:
        while True:
            yield
    finally:
        sleep(seconds)


def cleanup_by_dropped_generator(seconds):
    for _ in rows(seconds):
        sleep(100)


def cleanup_by_dropped_generators_below_each_other(seconds):
    def outer():
        for _ in rows(seconds):
            yield

    for _ in enumerate(outer()):
        sleep(100)


def cleanup_by_dropped_generator_behind_another_exception(seconds):
    try:
        for _ in rows(seconds):
            try:
                sleep(100)
            except Cancelled:
                raise KeyError from None
    except KeyError:
        pass
    checkpoint()


class CleansUp:
    def __init__(self, seconds):
        self.seconds = seconds

    def __del__(self):
        sleep(self.seconds)


def cleanup_by_dropped_object(seconds):
    for _ in iter(CleansUp(seconds).__repr__, None):
        sleep(100)


def cleanup_by_finalizer(seconds):
    resource = type("Resource", (), {})()
    weakref.finalize(resource, sleep, seconds)
    for _ in iter(resource.__repr__, None):
        del resource
        sleep(100)


def cleanup_in_except_star(seconds):
    try:
        sleep(100)
    except* Cancelled:
        sleep(seconds)
        raise


def cleanup_by_handler_of_groups(seconds):
    try:
        try:
            raise ExceptionGroup("handled", [ValueError(), KeyError()])
        except* ValueError:
            sleep(100)
        except* KeyError:
            sleep(100)
    except BaseExceptionGroup:
        sleep(seconds)
        raise


CLEANUPS = [
    cleanup_by_finally,
    cleanup_by_except,
    cleanup_by_exit,
    cleanup_by_generator,
    cleanup_behind_another_exception,
    cleanup_in_except_star,
    cleanup_by_handler_of_groups,
]


# The interpreter prints exceptions in these and continues.
CLEANUPS += [
    pytest.param(cleanup, marks=pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"))
    for cleanup in (
        cleanup_by_dropped_generator,
        cleanup_by_dropped_generators_below_each_other,
        cleanup_by_dropped_generator_behind_another_exception,
        cleanup_by_dropped_object,
        cleanup_by_finalizer,
    )
]


@pytest.mark.parametrize("cleanup", CLEANUPS)
def test_cleanup_may_block_within_its_grace(virtual, cleanup):
    def root():
        with move_on_after(1) as scope:
            cleanup(1.5)
        return scope.cancelled_caught, vthreads.now()

    assert (True, 2.5) == virtual(root)


@pytest.mark.parametrize("cleanup", CLEANUPS)
def test_cleanup_that_takes_longer_than_its_grace_is_cancelled(virtual, cleanup):
    def root():
        with move_on_after(1) as scope:
            cleanup(50)
        return scope.cancelled_caught, vthreads.now()

    assert (True, 3.0) == virtual(root)


def test_the_grace_counts_from_the_first_delivery_and_is_not_renewed(virtual):
    def root():
        times = []
        with move_on_after(1):
            try:
                sleep(100)
            finally:
                try:
                    sleep(1)
                    sleep(50)
                finally:
                    times.append(vthreads.now())
                    outcome(sleep, 50)
                    times.append(vthreads.now())
        return times

    assert [3.0, 3.0] == virtual(root)


def test_the_grace_counts_from_the_delivery_and_not_from_the_cancel(virtual):
    def root():
        with CancelScope() as scope:
            scope.cancel()
            with shield(10):
                sleep(5)
            try:
                checkpoint()
            finally:
                sleep(1.5)
        return vthreads.now()

    assert 6.5 == virtual(root)


def test_the_grace_is_inherited_from_the_enclosing_scope(virtual):
    def root():
        with CancelScope(cleanup_grace=7), CancelScope(), move_on_after(1):
            cleanup_by_finally(50)
        return vthreads.now()

    assert 8.0 == virtual(root)


def test_the_grace_is_inherited_by_the_members_of_a_group(virtual):
    def root():
        with move_on_after(1), ThreadGroup(cleanup_grace=7) as g:
            # The scope that is cancelled is the one outside, with the grace that holds there.
            future = g.spawn(cleanup_by_finally, 50)
        outside = vthreads.now()
        with ThreadGroup(cleanup_grace=7) as g:
            future = g.spawn(cleanup_by_finally, 50)
            g.cancel()
        return outside, vthreads.now() - outside, future.cancelled()

    assert (3.0, 7.0, True) == virtual(root)


@pytest.mark.parametrize("cleanup", CLEANUPS)
def test_without_grace_cleanup_is_cancelled_at_once(virtual, cleanup):
    def root():
        with move_on_after(1, cleanup_grace=0):
            cleanup(1)
        return vthreads.now()

    assert 1.0 == virtual(root)


def test_swallowing_the_cancellation_ends_the_grace(virtual):
    def root():
        with move_on_after(1):
            assert Cancelled is outcome(sleep, 100)
            sleep(1)
        return vthreads.now()

    assert 1.0 == virtual(root)


def generator_in_a_dead_frame(cleaned_up):
    def rows():
        try:
            yield
        finally:
            sleep(1.5)
            cleaned_up.append(vthreads.now())

    resource = rows()
    for _ in resource:
        sleep(100)


def object_in_a_dead_frame(cleaned_up):
    class CleansUp:
        def __del__(self):
            sleep(1.5)
            cleaned_up.append(vthreads.now())

    resource = CleansUp()
    sleep(100)
    del resource


def source_rows(cleaned_up):
    try:
        while True:
            yield 1
    finally:
        sleep(1.5)
        cleaned_up.append(vthreads.now())


def generator_that_a_map_reads(cleaned_up):
    with ThreadGroup():
        for _ in vthreads.map(int, source_rows(cleaned_up), max_concurrency=2):
            sleep(100)


def generator_of_a_map_that_is_dropped_unused(cleaned_up):
    source = source_rows(cleaned_up)
    next(source)
    mapped = vthreads.map(int, source)
    del source
    sleep(100)
    list(mapped)


def generator_of_a_map_that_is_closed_unused(cleaned_up):
    source = source_rows(cleaned_up)
    next(source)
    with contextlib.closing(vthreads.map(int, source)):
        del source
        sleep(100)


IN_DEAD_FRAMES = [
    generator_in_a_dead_frame,
    object_in_a_dead_frame,
    generator_that_a_map_reads,
    generator_of_a_map_that_is_dropped_unused,
    generator_of_a_map_that_is_closed_unused,
]


@pytest.mark.parametrize("function", IN_DEAD_FRAMES)
def test_what_the_frames_of_a_cancelled_thread_leave_is_cleaned_up_before_its_group_ends(virtual, function):
    def root():
        cleaned_up = []
        with ThreadGroup() as group:
            member = group.spawn(function, cleaned_up)
            sleep(1)
            member.cancel()
        return member.cancelled(), cleaned_up, vthreads.now()

    assert (True, [2.5], 2.5) == virtual(root)


def test_a_generator_that_is_closed_before_any_delivery_has_no_grace(virtual):
    def root():
        with CancelScope() as scope:
            generator = rows(1)
            next(generator)
            scope.cancel()
            assert Cancelled is outcome(generator.close)
        return vthreads.now()

    assert 0.0 == virtual(root)


def test_a_cancellation_of_another_thread_on_the_exception_chain_is_no_reason_for_grace(virtual):
    def root():
        def child(foreign):
            try:
                raise foreign
            except Cancelled:
                sleep(1)

        with ThreadGroup() as g:
            with CancelScope() as scope:
                scope.cancel()
                try:
                    checkpoint()
                except Cancelled as cancelled:
                    foreign = cancelled
            future = g.spawn(child, foreign)
            g.cancel()
        return future.cancelled(), vthreads.now()

    assert (True, 0.0) == virtual(root)


def test_groups_opened_during_the_grace_have_it_until_the_same_instant(virtual):
    def root():
        log = []

        def goodbye(seconds):
            sleep(seconds)
            log.append((seconds, vthreads.now()))

        with move_on_after(1):
            try:
                sleep(100)
            finally:
                sleep(0.5)
                with ThreadGroup() as g:
                    g.spawn(goodbye, 1)
                    with ThreadGroup() as nested:
                        nested.spawn(goodbye, 1.25)
                        g.spawn(goodbye, 2)
                        nested.spawn(goodbye, 2)
        return log, vthreads.now()

    assert ([(1, 2.5), (1.25, 2.75)], 3.0) == virtual(root)


def test_the_body_of_a_group_opened_during_the_grace_has_it_too(virtual):
    def root():
        with move_on_after(1):
            try:
                sleep(100)
            finally:
                with ThreadGroup():
                    sleep(50)
        return vthreads.now()

    assert 3.0 == virtual(root)


def test_an_outer_cancel_that_arrives_during_the_grace_waits_for_its_end(virtual):
    def root():
        with move_on_after(1.5) as outer:
            with move_on_after(1) as inner:
                cleanup_by_finally(50)
            return "not reached"
        return outer.cancelled_caught, inner.cancelled_caught, vthreads.now()

    assert (True, False, 3.0) == virtual(root)


def test_a_timeout_within_cleanup_counts(virtual):
    def root():
        with move_on_after(1):
            try:
                sleep(100)
            finally:
                with move_on_after(0.5) as goodbye:
                    sleep(100)
                late = vthreads.now()
        return goodbye.cancelled_caught, late

    assert (True, 1.5) == virtual(root)


def test_a_failure_in_a_group_opened_during_the_grace_cancels_its_body(virtual):
    def root():
        def failing():
            sleep(0.5)
            raise KeyError("goodbye failed")

        with move_on_after(1) as scope:
            try:
                sleep(100)
            finally:
                with pytest.raises(ExceptionGroup, match="1 failure"):
                    with ThreadGroup() as g:
                        g.spawn(failing)
                        sleep(100)
                late = vthreads.now()
        return scope.cancelled_caught, late

    assert (True, 1.5) == virtual(root)


def test_a_timeout_of_a_wait_within_cleanup_counts(virtual):
    def root():
        with ThreadGroup(on_failure="continue") as g:
            future = g.spawn(sleep, 10)
            with move_on_after(1):
                try:
                    sleep(100)
                finally:
                    assert TimeoutError is outcome(future.result, 0.5)
                    late = vthreads.now()
        return late

    assert 1.5 == virtual(root)
