"""Semaphores: guarantees beyond the common ones of `tests/sync/test_waiting.py`."""

from __future__ import annotations

import pytest

from vthreads import BoundedSemaphore, Semaphore, ThreadGroup, now, sleep
from vthreads._core.statistics import SemaphoreStatistics

pytestmark = pytest.mark.unpatched


def test_a_semaphore_lets_as_many_in_as_it_has_permits(virtual, order):
    def root():
        permits, inside, most = Semaphore(2), 0, 0

        def worker():
            nonlocal inside, most
            with permits:
                inside += 1
                most = max(most, inside)
                sleep(1)
                inside -= 1

        with ThreadGroup() as group:
            for _ in range(5):
                group.spawn(worker)
            assert SemaphoreStatistics(0, 3) == permits.statistics()
        assert SemaphoreStatistics(2, 0) == permits.statistics()
        return most, now()

    assert (2, 3) == virtual(root, order=order)


def test_a_permit_that_was_given_back_is_handed_over_and_not_taken_by_a_latecomer(virtual):
    def root():
        permits = Semaphore(0)
        with ThreadGroup() as group:
            group.spawn(permits.acquire)
            permits.release()
            return permits.acquire(blocking=False)

    assert virtual(root) is False


def test_several_permits_can_be_given_back_at_once(virtual):
    def root():
        permits, log = Semaphore(0), []
        with ThreadGroup() as group:
            for number in range(3):
                group.spawn(lambda number=number: (permits.acquire(), log.append(number)))
            permits.release(5)
        return log, permits.statistics()

    assert ([0, 1, 2], SemaphoreStatistics(2, 0)) == virtual(root)


def test_semaphores_refuse_what_threading_refuses():
    for kind in (Semaphore, BoundedSemaphore):
        with pytest.raises(ValueError, match="value=-1 is too small; give 0 or more"):
            kind(-1)
        with pytest.raises(ValueError, match="can't specify timeout for non-blocking acquire"):
            kind().acquire(False, 1)
        for n in (0, -1):
            with pytest.raises(ValueError, match=r"n=-?\d is too small; give 1 or more"):
                kind().release(n)
        assert kind(0).acquire(timeout=-1) is False


def test_a_bounded_semaphore_refuses_more_than_was_taken():
    permits = BoundedSemaphore(2)
    permits.acquire()
    with pytest.raises(ValueError, match="released more often than acquired"):
        permits.release(2)
    assert SemaphoreStatistics(1, 0) == permits.statistics()
    permits.release()
    with pytest.raises(ValueError, match="released more often than acquired"):
        permits.release()


def test_a_semaphore_says_its_state():
    assert "<Semaphore value=3 waiting=0>" == repr(Semaphore(3))
    assert "<BoundedSemaphore value=1 waiting=0>" == repr(BoundedSemaphore())
