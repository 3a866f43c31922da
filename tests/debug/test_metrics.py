"""`debug.metrics`: counters, and the delay of ready threads."""

import threading

import pytest

import vthreads
from vthreads import Event, ThreadGroup, checkpoint, debug, offload, sleep

pytestmark = pytest.mark.unpatched


def here():
    """The figures of the only carrier."""
    [carrier] = debug.metrics().carriers
    return carrier


def test_threads_are_counted_by_their_state(virtual):
    def root():
        event = Event()
        with ThreadGroup(max_concurrency=5) as group:
            for _ in range(3):
                group.spawn(sleep, 1)
            for _ in range(2):
                group.spawn(event.wait)
            event.set()
            return here()

    figures = virtual(root)
    assert {"new": 0, "ready": 2, "running": 1, "parked": 3} == figures.threads
    assert 2 == figures.ready


def test_switches_are_counted(virtual):
    def root():
        before = here().switches
        for _ in range(5):
            checkpoint()
        return here().switches - before

    assert 5 == virtual(root)


def test_without_being_asked_for_delays_are_not_measured(virtual):
    assert virtual(here).delays is None


def test_delays_are_counted_in_classes(virtual, clock):
    def root():
        with ThreadGroup() as group:
            event = Event()
            for _ in range(3):
                group.spawn(event.wait)
            event.set()
            # They are ready for as long as this runs.
            clock.advance(0.02)
            checkpoint()
            return here().delays

    with debug.measure_delays():
        delays = virtual(root)
    assert 3 == dict(zip(delays.bounds, delays.counts, strict=False))[0.03]
    assert pytest.approx(0.06) == delays.total
    assert len(delays.bounds) + 1 == len(delays.counts)


def test_a_delay_that_is_longer_than_every_bound_is_counted_last(virtual, clock):
    def root():
        with ThreadGroup() as group:
            event = Event()
            group.spawn(event.wait)
            event.set()
            clock.advance(100)
            checkpoint()
            return here().delays

    with debug.measure_delays():
        assert 1 == virtual(root).counts[-1]


def test_a_trace_and_delays_share_the_carrier(virtual, tmp_path):
    def root():
        with vthreads.trace(tmp_path / "out.json"), debug.measure_delays():
            checkpoint()
            return sum(here().delays.counts)

    assert 1 == virtual(root)
    assert "thread_name" in (tmp_path / "out.json").read_text()


def test_nothing_observes_when_it_is_over(virtual):
    def root():
        with debug.measure_delays():
            checkpoint()
        return vthreads.current_thread()._scheduler.observer

    assert virtual(root) is None


@pytest.mark.real
def test_offloads_under_way_are_counted():
    def root():
        begun, over = threading.Event(), threading.Event()

        def call():
            begun.set()
            over.wait()

        with ThreadGroup() as group:
            group.spawn(offload, call)
            begun.wait()
            during = debug.metrics()
            over.set()
        return during.offloads, during.abandoned, debug.metrics().carriers[0].threads["parked"]

    assert (1, 0, 0) == vthreads.run(root)


@pytest.mark.real
def test_another_os_thread_may_ask():
    def when_all_wait():
        while (figures := debug.metrics()).carriers[0].threads["parked"] < 5:
            pass
        return figures

    def root():
        with ThreadGroup() as group:
            for _ in range(4):
                group.spawn(sleep, 60)
            figures = offload(when_all_wait)
            group.cancel()
        return figures

    [carrier] = vthreads.run(root).carriers
    assert ("MainThread", 5, 0) == (carrier.name, carrier.threads["parked"], carrier.threads["running"])


def test_without_a_carrier_there_are_no_figures():
    assert () == debug.metrics().carriers
