"""The limit of how many members of a group run at once, and what waits for it."""

import threading

import pytest

import vthreads
from tests.core.outcomes import failing, outcome
from vthreads import ThreadGroup, move_on_after, sleep
from vthreads._core.originals import allocate_lock
from vthreads._core.semaphore import Semaphore
from vthreads.errors import GroupClosed, GroupFull

pytestmark = pytest.mark.unpatched


def test_the_body_waits_while_the_group_is_full(virtual):
    def root():
        log = []
        with ThreadGroup(max_concurrency=2) as g:
            for _ in range(5):
                g.spawn(sleep, 1)
                log.append(vthreads.now())
        return log, vthreads.now()

    assert ([0, 0, 1, 1, 2], 3.0) == virtual(root)


def test_a_stranger_waits_while_the_group_is_full(virtual):
    def root():
        def stranger():
            g.spawn(sleep, 1)
            return vthreads.now()

        with ThreadGroup() as others, ThreadGroup(max_concurrency=1) as g:
            g.spawn(sleep, 3)
            future = others.spawn(stranger)
        return future.result()

    assert 3.0 == virtual(root)


def test_after_the_wait_the_child_starts_before_spawn_returns(virtual, order):
    def root():
        log = []
        with ThreadGroup(max_concurrency=1) as g:
            g.spawn(sleep, 1)
            g.spawn(lambda: (log.append("child"), sleep(1)))
            log.append("body")
        return log

    assert ["child", "body"] == virtual(root, order=order)


def test_the_wait_of_a_spawner_can_be_cancelled(virtual):
    def root():
        started = []
        with ThreadGroup(max_concurrency=1) as g:
            g.spawn(sleep, 5)
            with move_on_after(1) as scope:
                g.spawn(started.append, 1)
            given_up = vthreads.now()
        return scope.cancelled_caught, given_up, started, g._permits.statistics().value

    assert (True, 1.0, [], 1) == virtual(root)


def test_a_spawner_that_waited_for_a_group_that_failed_meanwhile_is_refused(virtual):
    def root():
        def stranger():
            return outcome(g.spawn, sleep, 1)

        with ThreadGroup() as others:
            with pytest.raises(ExceptionGroup):
                with ThreadGroup(max_concurrency=1) as g:
                    g.spawn(failing, KeyError(), 1)
                    future = others.spawn(stranger)
        return future.result(), g._permits.statistics().value

    assert (GroupClosed, 1) == virtual(root)


def test_a_full_group_is_never_fuller_than_allowed(virtual, order):
    def root():
        running, most = 0, 0

        def child():
            nonlocal running, most
            running += 1
            most = max(most, running)
            sleep(1)
            if vthreads.now() < 5:
                g.spawn(child)
            running -= 1

        with ThreadGroup(max_concurrency=3) as g:
            for _ in range(10):
                g.spawn(child)
        return most

    assert 3 == virtual(root, order=order)


def test_members_never_wait_to_spawn(virtual):
    def root():
        def member():
            for _ in range(3):
                futures.append(g.spawn(sleep, 1))
            return vthreads.now()

        futures = []
        with ThreadGroup(max_concurrency=1) as g:
            at_once = g.spawn(member)
        return at_once.result(), vthreads.now(), [future.done() for future in futures]

    assert (0.0, 3.0, [True] * 3) == virtual(root)


def test_threads_of_nested_groups_never_wait_to_spawn(virtual):
    def root():
        def nested():
            g.spawn(sleep, 1)
            return vthreads.now()

        def member():
            with ThreadGroup() as inner:
                return inner.spawn(nested).result()

        with ThreadGroup(max_concurrency=1) as g:
            return g.spawn(member).result()

    assert 0.0 == virtual(root)


def test_queued_children_start_in_their_order(virtual):
    def root():
        log = []

        def member():
            for name in "abc":
                g.spawn(lambda name: (log.append((name, vthreads.now())), sleep(1)), name)

        with ThreadGroup(max_concurrency=1) as g:
            g.spawn(member)
        return log

    assert [("a", 0.0), ("b", 1.0), ("c", 2.0)] == virtual(root)


def test_no_more_children_are_queued_than_max_pending(virtual):
    def root():
        started = []

        def member():
            g.spawn(started.append, 1)
            g.spawn(started.append, 2)
            with pytest.raises(GroupFull, match="max_pending"):
                g.spawn(started.append, 3)

        with ThreadGroup(max_concurrency=1, max_pending=2) as g:
            g.spawn(member)
        return started

    assert [1, 2] == virtual(root)


def test_try_spawn_does_not_wait(virtual):
    def root():
        with ThreadGroup(max_concurrency=1) as g:
            first = g.try_spawn(sleep, 1)
            second = g.try_spawn(sleep, 1)
            sleep(2)
            third = g.try_spawn(sleep, 1)
        return first is None, second is None, third is None, vthreads.now()

    assert (False, True, False, 3.0) == virtual(root)


def test_groups_may_share_a_semaphore(virtual):
    def root():
        permits = Semaphore(2)

        def work():
            for _ in range(2):
                with ThreadGroup(max_concurrency=permits) as g:
                    for _ in range(2):
                        g.spawn(sleep, 1)

        with ThreadGroup() as outer:
            outer.spawn(work)
            outer.spawn(work)
        return vthreads.now(), permits.statistics().value

    assert (4.0, 2) == virtual(root)


def test_a_queued_thread_that_is_cancelled_never_runs(virtual):
    def root():
        started = []

        def member():
            future = g.spawn(started.append, 1)
            future.cancel()
            sleep(1)
            return future

        with ThreadGroup(max_concurrency=1) as g:
            future = g.spawn(member).result()
        return started, future.cancelled(), g._permits.statistics().value

    assert ([], True, 1) == virtual(root)


def test_queued_threads_of_a_cancelled_group_never_run(virtual):
    def root():
        started = []

        def member():
            for _ in range(5):
                g.spawn(started.append, 1)
            sleep(1)

        with ThreadGroup(max_concurrency=1) as g:
            g.spawn(member)
            g.cancel()
        return started, len(g), g._permits.statistics()

    started, members, permits = virtual(root)
    assert ([], 0, 1, 0) == (started, members, permits.value, permits.waiting)


def test_a_thread_spawned_by_an_os_thread_and_cancelled_before_its_first_run_never_runs(virtual):
    def root():
        started = []
        with ThreadGroup() as g:
            futures = []

            def outside():
                futures.append(g.spawn(started.append, 1))
                futures[0].cancel()
                done.release()

            done = allocate_lock()
            done.acquire()
            os_thread = threading.Thread(target=outside)
            os_thread.start()
            # Blocks the whole carrier, patched or not.
            done.acquire()
        os_thread.join()
        return started, futures[0].cancelled()

    assert ([], True) == virtual(root)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_concurrency": 0},
        {"max_concurrency": -1},
        {"max_pending": -1},
        {"on_failure": "ignore"},
        {"errors": "none"},
        {"cleanup_grace": float("nan")},
    ],
)
def test_arguments_out_of_their_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ThreadGroup(**wrong)
