"""The load of the carriers, for `top`. Reading it is cheap and pins no carrier.

The delay of the run queue is measured by a probe: a fiber that is made ready like a thread and records when it runs.
"""

from __future__ import annotations

import os
from collections import Counter
from heapq import nlargest
from math import inf
from time import monotonic
from typing import Any

from .._core.arguments import checked_count, checked_span
from .._core.deadlock import threads_on
from .._core.engine import Fiber, Scheduler, State, carriers, engine_name
from .._core.originals import allocate_lock
from .._core.os_thread_kinds import frames_of_os_threads
from .._core.thread import VirtualThread
from .._os_threads.calls import calls_under_way
from ._os_thread_names import name_of_os_thread
from ._stacks import add_source, frame_of, stack_from
from ._waits import Waits

__all__ = ["load"]

Data = dict[str, Any]


def load(*, slowest: int = 10, patience: float = 0.5) -> Data:
    """Measure the load of all carriers. Not a checkpoint; call it on a plain OS thread.

    Args:
        slowest: how many of the longest waits to return.
        patience: seconds that each carrier has to run the probe.

    Returns:
        Data for `json.dumps`, as described in docs/reference/dump.md.
    """
    slowest, patience = checked_count(slowest, "slowest", 0), checked_span(patience, "patience")
    return {
        "pid": os.getpid(),
        "engine": engine_name,
        "at": monotonic(),
        "carriers": [_carrier(scheduler, slowest, patience) for scheduler in list(carriers.values())],
        "calls": len(calls_under_way()),
    }


class _Probe(Fiber):
    """Records how long it was in the run queue."""

    name = "probe of the run queue"

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__(scheduler, None)
        self.ready_at: float | None = None
        self.ran_at: float | None = None
        self.has_run = allocate_lock()
        self.has_run.acquire()

    def enter(self) -> None:
        """Join the run queue (called on the carrier)."""
        self.ready_at = monotonic()
        self._scheduler.make_ready(self)

    def run(self) -> None:
        self.ran_at = monotonic()
        self.has_run.release()


def _carrier(scheduler: Scheduler, slowest: int, patience: float) -> Data:
    probe = _Probe(scheduler)
    scheduler.post(probe.enter)
    probe.has_run.acquire(True, patience)
    ready_at, ran_at = probe.ready_at, probe.ran_at
    # A carrier that has not even run `enter` does not switch.
    pinned = ready_at is None
    stack = stack_from(frames_of_os_threads().get(scheduler.ident)) if pinned else []
    add_source(stack)
    threads = list(threads_on(scheduler))
    return {
        "os_thread": {"ident": scheduler.ident, "name": name_of_os_thread(scheduler.ident)},
        "pinned": pinned,
        "stack": stack,
        "delay": None if ready_at is None else (ran_at or monotonic()) - ready_at,
        "switches": scheduler.switches,
        "ready": len(scheduler._ready),
        "timers": len(scheduler.timers),
        "descriptors": scheduler.descriptors.waiting,
        "threads": dict(Counter(thread.state.value for thread in threads)),
        "slowest": _slowest(scheduler, threads, slowest),
    }


def _slowest(scheduler: Scheduler, threads: list[VirtualThread], count: int) -> list[Data]:
    waits, now = Waits(scheduler), scheduler.clock.now()
    # A thread that has not run yet has not parked itself either.
    parked = [thread for thread in threads if thread.state is State.PARKED and thread._parked_at > -inf]
    return [
        {
            "name": thread.name,
            "parked_for": now - thread._parked_at,
            "waits_for": waits.of(thread, frame_of(thread, scheduler))[0],
        }
        for thread in nlargest(count, parked, key=lambda thread: -thread._parked_at)
    ]
