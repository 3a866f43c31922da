"""Barriers: guarantees beyond the common ones of `test_waiting`."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from threading import BrokenBarrierError

import pytest

from vthreads import ThreadGroup, now, sleep
from vthreads._sync.barriers import Barrier
from vthreads._sync.statistics import BarrierStatistics

pytestmark = pytest.mark.unpatched


def until(condition):
    while not condition():
        sleep(0)
        time.sleep(0)


def broken(barrier, *args):
    with pytest.raises(BrokenBarrierError):
        barrier.wait(*args)
    return True


def test_a_barrier_opens_for_all_at_once_again_and_again(virtual, order):
    def root():
        barrier, log = Barrier(3), []

        def party():
            for lap in range(3):
                index = barrier.wait()
                log.append((lap, index))

        with ThreadGroup() as group:
            for _ in range(3):
                group.spawn(party)
        assert BarrierStatistics(0, 3, False) == barrier.statistics()
        return log

    log = virtual(root, order=order)
    for lap in range(3):
        assert [(lap, 0), (lap, 1), (lap, 2)] == sorted(log[3 * lap : 3 * lap + 3])


def test_the_action_runs_once_per_lap_before_any_party_goes_on(virtual):
    def root():
        log = []
        barrier = Barrier(2, lambda: log.append("action"))

        def party():
            for _ in range(2):
                barrier.wait()
                log.append("party")

        with ThreadGroup() as group:
            group.spawn(party)
            group.spawn(party)
        return log

    assert ["action", "party", "party"] * 2 == virtual(root)


def test_a_party_that_times_out_breaks_the_barrier(virtual):
    def root():
        barrier = Barrier(3)
        with ThreadGroup() as group:
            others = [group.spawn(broken, barrier, seconds) for seconds in (5, None)]
        assert 5 == now()
        assert barrier.broken
        assert all(other.result() for other in others)
        assert broken(barrier)

    virtual(root)


def test_the_timeout_of_a_barrier_is_the_default_of_wait(virtual):
    def root():
        barrier = Barrier(2, timeout=3)
        broken(barrier)
        assert 3 == now()
        barrier.reset()
        broken(barrier, 4)
        assert 7 == now()

    virtual(root)


def test_a_cancelled_party_breaks_the_barrier(virtual, order):
    def root():
        barrier = Barrier(3)
        with ThreadGroup() as group:
            first = group.spawn(barrier.wait)
            second = group.spawn(broken, barrier)
            first.cancel()
            # At once, not only when the cancelled party has run: it must not count as arrived.
            assert barrier.broken
            assert broken(barrier)
        return first.cancelled(), second.result(), barrier.n_waiting

    assert (True, True, 0) == virtual(root, order=order)


def test_a_party_cancelled_after_the_last_one_came_has_passed(virtual):
    def root():
        barrier, log = Barrier(2), []
        with ThreadGroup() as group:
            first = group.spawn(lambda: log.append(barrier.wait()))
            barrier.wait()
            first.cancel()
        return log, barrier.broken

    assert ([0], False) == virtual(root)


def test_a_failing_action_breaks_the_barrier(virtual):
    def root():
        barrier = Barrier(2, lambda: 1 / 0)
        with ThreadGroup() as group:
            other = group.spawn(broken, barrier)
            with pytest.raises(ZeroDivisionError):
                barrier.wait()
        return other.result(), barrier.broken

    assert (True, True) == virtual(root)


def test_who_comes_while_the_action_runs_is_of_the_next_lap(virtual):
    def root():
        barrier = Barrier(2, lambda: sleep(5))
        with ThreadGroup() as group:
            parties = [group.spawn(barrier.wait) for _ in range(4)]
        return sorted(party.result() for party in parties), now()

    # Both actions take their five seconds at the same time.
    assert ([0, 0, 1, 1], 5) == virtual(root)


def test_who_came_while_an_action_ran_that_failed_gets_a_broken_barrier(virtual):
    def root():
        def action():
            sleep(5)
            raise ValueError("of the action")

        barrier = Barrier(2, action)
        with ThreadGroup() as group:
            first = group.spawn(broken, barrier)

            def last():
                with pytest.raises(ValueError, match="of the action"):
                    barrier.wait()

            group.spawn(last)
            early = group.spawn(broken, barrier)
        return first.result(), early.result(), barrier.statistics()

    assert (True, True, BarrierStatistics(0, 2, True)) == virtual(root)


def test_a_party_that_leaves_while_the_action_runs_breaks_the_barrier(virtual):
    def root():
        barrier = Barrier(2, lambda: sleep(5))
        with ThreadGroup() as group:
            group.spawn(broken, barrier, 3)
            group.spawn(broken, barrier)
        return barrier.broken

    assert virtual(root)


def test_abort_breaks_for_good_and_reset_makes_it_new(virtual):
    def root():
        barrier = Barrier(2)
        for end, stays_broken in ((barrier.abort, True), (barrier.reset, False)):
            with ThreadGroup() as group:
                waiter = group.spawn(broken, barrier)
                end()
            assert waiter.result()
            assert stays_broken is barrier.broken
            barrier.reset()
        with ThreadGroup() as group:
            group.spawn(barrier.wait)
            assert 1 == barrier.wait()

    virtual(root)


def test_a_barrier_of_one_never_waits(virtual):
    def root():
        barrier = Barrier(1)
        return [barrier.wait(), barrier.wait(0)]

    assert [0, 0] == virtual(root)


def test_a_barrier_of_none_is_refused():
    with pytest.raises(ValueError, match="parties=0 is too small; give 1 or more"):
        Barrier(0)


def test_a_barrier_says_its_state(virtual):
    def root():
        barrier = Barrier(2)
        with ThreadGroup() as group:
            group.spawn(broken, barrier)
            assert (2, 1, "<Barrier waiting=1/2>") == (barrier.parties, barrier.n_waiting, repr(barrier))
            barrier.abort()
        assert "<Barrier broken>" == repr(barrier)

    virtual(root)


def test_virtual_and_os_threads_meet_at_a_barrier(virtual):
    def root():
        barrier, log = Barrier(4), []

        def party():
            for lap in range(20):
                barrier.wait()
                log.append(lap)

        with ThreadPoolExecutor(2) as pool, ThreadGroup() as group:
            futures = [pool.submit(party) for _ in range(2)]
            for _ in range(2):
                group.spawn(party)
            until(lambda: all(future.done() for future in futures))
        return log

    assert [lap for lap in range(20) for _ in range(4)] == virtual(root)
