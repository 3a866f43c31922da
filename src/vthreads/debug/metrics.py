"""Figures of a running program: threads by state, switches, offloaded calls, and how long ready threads wait to run.

Nothing here knows where the figures go: `examples/metrics.py` shows them as Prometheus text.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Any, NamedTuple

from .._core.clock import Clock
from .._core.current import carriers
from .._core.deadlock import threads_below
from .._core.engine import Scheduler, State
from ..os_calls import calls_under_way
from .observers import Observation, observe

__all__ = ["CarrierMetrics", "Delays", "Metrics", "measure_delays", "metrics"]

# Upper bounds of the classes that delays are counted in, in seconds; the last class has none.
BOUNDS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)


class Delays(NamedTuple):
    """How long threads were ready before they ran, as a histogram.

    Attributes:
        bounds: the upper bound of each class, in seconds; one more class has none.
        counts: of each class.
        total: the sum of all delays, in seconds.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float


class CarrierMetrics(NamedTuple):
    """The figures of one carrier.

    Attributes:
        name: of its root.
        threads: how many virtual threads there are in each state: "ready", "running", "parked" and "new".
        ready: length of the run queue.
        switches: how often somebody was chosen to run next, since the carrier started.
        descriptors: how many waits for a descriptor there are.
        delays: of the run queue; None unless `measure_delays` was called.
    """

    name: str
    threads: dict[str, int]
    ready: int
    switches: int
    descriptors: int
    delays: Delays | None


class Metrics(NamedTuple):
    """The figures of a process.

    Attributes:
        carriers: of each carrier.
        offloads: calls that occupy an OS thread.
        abandoned: those among them that nobody waits for any more.
    """

    carriers: tuple[CarrierMetrics, ...]
    offloads: int
    abandoned: int


class _DelayObserver:
    """Counts the delays of one carrier."""

    def __init__(self, clock: Clock) -> None:
        self._now = clock.now
        self._ready_since: dict[Any, float] = {}
        self._counts = [0] * (len(BOUNDS) + 1)
        self._total = 0.0

    def parked(self, thread: Any) -> None:
        """Not of interest."""

    def readied(self, thread: Any) -> None:
        self._ready_since[thread] = self._now()

    def runs(self, thread: Any) -> None:
        since = self._ready_since.pop(thread, None)
        if since is not None:
            delay = self._now() - since
            self._total += delay
            self._counts[bisect_left(BOUNDS, delay)] += 1

    def ended(self, thread: Any) -> None:
        """Not of interest."""

    def close(self) -> None:
        self._ready_since.clear()

    def delays(self) -> Delays:
        """What was counted until now."""
        return Delays(BOUNDS, tuple(self._counts), self._total)


_observers: dict[Scheduler, _DelayObserver] = {}


def _observer_of(scheduler: Scheduler) -> _DelayObserver:
    for gone in [known for known in _observers if known.closed]:
        del _observers[gone]
    observer = _observers[scheduler] = _DelayObserver(scheduler.clock)
    return observer


def measure_delays() -> Observation:
    """Measure how long ready threads wait to run, on every carrier, for `metrics()`. Not a checkpoint; thread-safe.

    It costs about a microsecond for each switch. What it returns is a context manager; `end()` ends it as well.
    """
    return observe(_observer_of)


def metrics() -> Metrics:
    """Take the figures of all carriers. Not a checkpoint; thread-safe.

    Counting the threads takes time in proportion to their number. From another OS thread than their carrier, the
    figures are of moments that lie close together.
    """
    calls = calls_under_way()
    return Metrics(
        carriers=tuple(_of_carrier(scheduler) for scheduler in list(carriers.values())),
        offloads=len(calls),
        abandoned=sum(call.abandoned for call in calls),
    )


def _of_carrier(scheduler: Scheduler) -> CarrierMetrics:
    threads = {state.value: 0 for state in State if state is not State.ENDED}
    for thread in threads_below(scheduler):
        # It may have ended since it was found.
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
