"""Metrics of a running program: threads by state, switches, offloaded calls, and how long ready threads wait to run.

This module does not depend on how they are exported: `examples/metrics.py` shows them as Prometheus text.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Any, NamedTuple

from .._core.clock import Clock
from .._core.current import carriers
from .._core.deadlock import threads_on
from .._core.engine import Scheduler, State
from .._os_threads.calls import calls_under_way
from ._observers import Observation, observe

__all__ = ["CarrierMetrics", "Delays", "Metrics", "measure_delays", "metrics"]

# Upper bounds of the histogram classes of delays, in seconds; the last class has none.
BOUNDS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)


class Delays(NamedTuple):
    """Histogram of the time between "ready" and "running".

    Attributes:
        bounds: the upper bound of each class, in seconds; one more class has none.
        counts: number of delays in each class.
        total: the sum of all delays, in seconds.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float


class CarrierMetrics(NamedTuple):
    """The metrics of one carrier.

    Attributes:
        name: name of its root.
        threads: number of virtual threads by state: "ready", "running", "parked" and "new".
        ready: length of the run queue.
        switches: number of switches since the start of the carrier.
        descriptors: number of waits for a descriptor.
        delays: delays of the run queue; None unless `measure_delays` is active.
    """

    name: str
    threads: dict[str, int]
    ready: int
    switches: int
    descriptors: int
    delays: Delays | None


class Metrics(NamedTuple):
    """The metrics of a process.

    Attributes:
        carriers: the metrics of each carrier.
        offloads: number of calls that occupy an OS thread or run in an executor.
        abandoned: number of those for which no thread waits any more.
    """

    carriers: tuple[CarrierMetrics, ...]
    offloads: int
    abandoned: int


class _DelayObserver:
    """Measures the delays of one carrier."""

    def __init__(self, clock: Clock) -> None:
        self._now = clock.now
        self._ready_since: dict[Any, float] = {}
        self._counts = [0] * (len(BOUNDS) + 1)
        self._total = 0.0

    def parked(self, thread: Any) -> None:
        """Ignore this event."""

    def readied(self, thread: Any) -> None:
        self._ready_since[thread] = self._now()

    def runs(self, thread: Any) -> None:
        since = self._ready_since.pop(thread, None)
        if since is not None:
            delay = self._now() - since
            self._total += delay
            self._counts[bisect_left(BOUNDS, delay)] += 1

    def ended(self, thread: Any) -> None:
        """Ignore this event."""

    def close(self) -> None:
        self._ready_since.clear()

    def delays(self) -> Delays:
        """Return the delays so far."""
        return Delays(BOUNDS, tuple(self._counts), self._total)


_observers: dict[Scheduler, _DelayObserver] = {}


def _observer_of(scheduler: Scheduler) -> _DelayObserver:
    for gone in [known for known in _observers if known.closed]:
        del _observers[gone]
    observer = _observers[scheduler] = _DelayObserver(scheduler.clock)
    return observer


def measure_delays() -> Observation:
    """Measure how long ready threads wait to run, on every carrier, for `metrics()`. Not a checkpoint; thread-safe.

    It costs about a microsecond per switch. Returns a context manager; its `end()` also ends the measurement.
    """
    return observe(_observer_of)


def metrics() -> Metrics:
    """Return the metrics of all carriers. Not a checkpoint; thread-safe.

    Counting the threads takes time in proportion to their number. Called from another OS thread than a carrier, the
    numbers are not from exactly the same moment.
    """
    calls = calls_under_way()
    return Metrics(
        carriers=tuple(_of_carrier(scheduler) for scheduler in list(carriers.values())),
        offloads=len(calls),
        abandoned=sum(call.abandoned for call in calls),
    )


def _of_carrier(scheduler: Scheduler) -> CarrierMetrics:
    threads = {state.value: 0 for state in State if state is not State.ENDED}
    for thread in threads_on(scheduler):
        # The thread may have ended after `threads_on` found it.
        if thread.state is not State.ENDED:
            threads[thread.state.value] += 1
    observer = _observers.get(scheduler)
    return CarrierMetrics(
        name=scheduler.root.name,
        threads=threads,
        ready=len(scheduler._ready),
        switches=scheduler.switches,
        descriptors=scheduler.descriptors.waiting,
        delays=None if observer is None else observer.delays(),
    )
