"""Objects that a dump makes do not count for the next full garbage collection."""

from __future__ import annotations

import gc
import json

import pytest

import vthreads
from vthreads.debug import _garbage_collector, _snapshots, dump
from vthreads.debug._garbage_collector import promote_young_objects


class Tracked:
    pass


def is_old(tracked):
    return any(tracked is old for old in gc.get_objects(generation=2))


@pytest.fixture
def quiet_collector(monkeypatch):
    """A collector that starts no collection, and objects that no earlier code has frozen."""
    monkeypatch.setattr(_garbage_collector, "_has_frozen", False)
    frozen = gc.get_freeze_count()
    gc.unfreeze()
    before = gc.get_threshold()
    gc.set_threshold(1_000_000)
    yield
    gc.set_threshold(*before)
    if frozen:
        gc.freeze()


def test_young_objects_become_old_without_a_collection(quiet_collector):
    tracked = Tracked()
    assert not is_old(tracked)
    promote_young_objects()
    assert is_old(tracked)
    assert 0 == gc.get_freeze_count()


def test_objects_that_the_program_has_frozen_stay_frozen(quiet_collector):
    gc.freeze()
    try:
        frozen, tracked = gc.get_freeze_count(), Tracked()
        promote_young_objects()
        assert not is_old(tracked)
        assert gc.get_freeze_count() > frozen - 100
    finally:
        gc.unfreeze()


def test_frozen_objects_are_counted_once(quiet_collector, monkeypatch):
    # The count takes time for each frozen object, and a dump checks the collector every thousand threads.
    counted = []
    monkeypatch.setattr(gc, "get_freeze_count", lambda: counted.append(1) or 1_000_000)
    for _ in range(3):
        promote_young_objects()
    assert [1] == counted


def test_a_program_without_collector_keeps_its_young_objects(quiet_collector):
    gc.disable()
    try:
        tracked = Tracked()
        promote_young_objects()
        assert not is_old(tracked)
    finally:
        gc.enable()


def test_a_large_dump_promotes_what_it_makes(quiet_collector, virtual, monkeypatch):
    monkeypatch.setattr(_snapshots, "PROMOTED_AT_ONCE", 10)

    def root():
        never, young = vthreads.Event(), Tracked()
        with vthreads.ThreadGroup() as group:
            for _ in range(20):
                group.spawn(never.wait)
            vthreads.testing.wait_all_parked()
            threads = json.loads(dump("json"))["carriers"][0]["threads"]
            never.set()
        return threads["parked"], is_old(young)

    assert (20, True) == virtual(root)
