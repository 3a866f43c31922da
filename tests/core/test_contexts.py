"""The context variables that virtual threads inherit."""

from __future__ import annotations

import decimal
from contextvars import ContextVar, copy_context

import pytest

import vthreads
from vthreads import ThreadGroup
from vthreads.testing import VirtualClock

pytestmark = pytest.mark.unpatched

name = ContextVar("name", default="nobody")


def set_precision(digits):
    before = decimal.getcontext().prec
    decimal.getcontext().prec = digits
    vthreads.sleep(1)
    return before, decimal.getcontext().prec


def in_group():
    with ThreadGroup() as group:
        futures = [group.spawn(set_precision, digits) for digits in (5, 6)]
    return [future.result() for future in futures]


def queued():
    with ThreadGroup(max_concurrency=1) as group:
        futures = [group.spawn(set_precision, digits) for digits in (5, 6)]
    return [future.result() for future in futures]


def in_background():
    futures = [vthreads.spawn(set_precision, digits) for digits in (5, 6)]
    return [future.result() for future in futures]


def mapped():
    return list(vthreads.map(set_precision, (5, 6)))


def gathered():
    return vthreads.gather(lambda: set_precision(5), lambda: set_precision(6))


@pytest.mark.parametrize("spawn", [in_group, queued, in_background, mapped, gathered])
def test_each_thread_has_a_decimal_context_with_the_settings_of_its_parent(spawn):
    def root():
        with decimal.localcontext(prec=40):
            name.set("parent")
            assert [(40, 5), (40, 6)] == list(spawn())
            return decimal.getcontext().prec

    assert 40 == copy_context().run(vthreads.run, root, clock=VirtualClock())


def test_a_change_of_the_parent_is_not_seen_by_its_children():
    def child():
        vthreads.sleep(1)
        return decimal.getcontext().prec, name.get()

    def root():
        with decimal.localcontext(prec=40), ThreadGroup() as group:
            name.set("parent")
            future = group.spawn(child)
            decimal.getcontext().prec = 3
            name.set("later")
        return future.result()

    assert (40, "parent") == copy_context().run(vthreads.run, root, clock=VirtualClock())


def test_an_offloaded_call_does_not_change_the_precision_of_its_caller():
    def set_and_get(digits):
        before = decimal.getcontext().prec
        decimal.getcontext().prec = digits
        return before

    def caller():
        with decimal.localcontext(prec=40):
            return vthreads.offload(set_and_get, 5), decimal.getcontext().prec

    assert (40, 40) == copy_context().run(vthreads.run, caller)
