"""Events: guarantees beyond the common ones of `test_waiting`."""

from __future__ import annotations

from vthreads import CancelScope, ThreadGroup
from vthreads._sync.events import Event
from vthreads._sync.statistics import EventStatistics


def test_an_event_lets_through_until_it_is_cleared(virtual):
    def root():
        event = Event()
        assert (False, False) == (event.is_set(), event.wait(1))
        event.set()
        assert (True, True, True) == (event.is_set(), event.wait(), event.wait(0))
        event.clear()
        assert (False, False) == (event.is_set(), event.wait(0))

    virtual(root)


def test_a_set_event_in_a_cancelled_scope_raises(virtual):
    def root():
        event = Event()
        event.set()
        with CancelScope() as scope:
            scope.cancel()
            event.wait()
        return scope.cancelled_caught

    assert virtual(root)


def test_those_who_waited_for_an_event_go_on_even_if_it_is_cleared_at_once(virtual, order):
    def root():
        event, log = Event(), []
        with ThreadGroup() as group:
            for number in range(3):
                group.spawn(lambda number=number: (event.wait(), log.append(number)))
            assert (EventStatistics(False, 3), "<Event unset waiting=3>") == (event.statistics(), repr(event))
            event.set()
            event.clear()
        return sorted(log)

    assert [0, 1, 2] == virtual(root, order=order)


def test_an_event_says_its_state():
    event = Event()
    event.set()
    assert ("<Event set waiting=0>", EventStatistics(True, 0)) == (repr(event), event.statistics())
