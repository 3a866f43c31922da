"""Shields: blocks that cancellation from outside reaches late or not at all."""

from math import inf

import pytest

import vthreads
from tests.core.outcomes import outcome
from vthreads import CancelScope, ThreadGroup, checkpoint, move_on_after, remaining, shield, sleep
from vthreads.errors import Cancelled

pytestmark = pytest.mark.unpatched


def test_a_shield_defers_the_cancellation_of_enclosing_scopes(virtual):
    def root():
        with CancelScope() as scope:
            scope.cancel()
            with shield(None):
                sleep(5)
                inside = vthreads.now()
            sleep(1)
        return inside, vthreads.now()

    assert (5.0, 5.0) == virtual(root)


def test_a_bounded_shield_ends_by_itself(virtual):
    def root():
        with CancelScope() as scope:
            scope.cancel()
            with shield(3):
                sleep(100)
        return scope.cancelled_caught, vthreads.now()

    assert (True, 3.0) == virtual(root)


def test_a_shield_of_no_seconds_shields_nothing(virtual):
    def root():
        with CancelScope() as scope:
            scope.cancel()
            with shield(0):
                return outcome(checkpoint)

    assert Cancelled is virtual(root)


def test_a_shield_cancels_nothing_by_itself(virtual):
    def root():
        with shield(1) as scope:
            sleep(5)
        return scope.cancel_called, vthreads.now()

    assert (False, 5.0) == virtual(root)


def test_a_cancel_that_arrives_during_a_shield_waits_for_its_end(virtual):
    def root():
        with move_on_after(1), shield(5):
            sleep(100)
        return vthreads.now()

    assert 5.0 == virtual(root)


def test_remaining_inside_a_shield_ignores_the_deferred_scopes(virtual):
    def root():
        with move_on_after(1):
            with shield(5):
                seen = [remaining()]
                with move_on_after(3):
                    seen.append(remaining())
                sleep(2)
                seen.append(remaining())
            return seen

    assert [inf, 3.0, inf] == virtual(root)


def test_a_scope_inside_a_shield_is_cancelled_and_absorbs(virtual):
    def root():
        with CancelScope() as outer:
            outer.cancel()
            with shield(None):
                with move_on_after(2) as inner:
                    sleep(100)
                sleep(1)
                inside = vthreads.now()
        return inner.cancelled_caught, inside

    assert (True, 3.0) == virtual(root)


def test_a_shielded_scope_absorbs_its_own_cancellation_in_a_cancelled_scope(virtual):
    def root():
        with CancelScope() as outer:
            outer.cancel()
            with CancelScope(shield=True) as inner:
                inner.cancel()
                sleep(1)
            return inner.cancelled_caught, outcome(checkpoint)

    assert (True, Cancelled) == virtual(root)


def test_groups_opened_inside_a_shield_are_shielded(virtual):
    def root():
        with CancelScope() as scope:
            scope.cancel()
            with shield(3), ThreadGroup() as g:
                short, long = g.spawn(sleep, 2), g.spawn(sleep, 100)
        return short.cancelled(), long.cancelled(), vthreads.now()

    assert (False, True, 3.0) == virtual(root)


def test_a_member_of_a_group_outside_is_not_shielded(virtual):
    def root():
        with CancelScope() as scope, ThreadGroup() as g:
            with shield(None):
                future = g.spawn(sleep, 100)
                scope.cancel()
                sleep(1)
                cancelled = future.cancelled()
        return cancelled

    assert virtual(root) is True


def test_a_shield_may_be_set_and_dropped(virtual):
    def root():
        with CancelScope() as outer:
            outer.cancel()
            with CancelScope() as inner:
                inner.shield = True
                sleep(1)
                inner.shield = False
                return vthreads.now(), outcome(sleep, 1)

    assert (1.0, Cancelled) == virtual(root)
