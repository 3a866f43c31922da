"""How busy the carriers are: what `top` shows again and again, so it is cheap and pins nobody.

The delay of the run queue is measured by a probe: a fiber that is made ready like any other, and notes when it runs.
"""

from __future__ import annotations

import os
from collections import Counter
from heapq import nlargest
from math import inf
from time import monotonic
from typing import Any

from .._core.deadlock import threads_below
from .._core.engine import Fiber, Scheduler, State, carriers, engine_name
from .._core.originals import allocate_lock
from .._core.runtime import frames_of_os_threads
from .._core.thread import VirtualThread
from ..os_calls import calls_under_way
from .places import add_source, frame_of, stack_from
from .snapshots import name_of_os_thread
from .waits import Waits

__all__ = ["load"]

Data = dict[str, Any]


def load(*, slowest: int = 10, patience: float = 0.5) -> Data:
    """Look at how busy the carriers are. Not a checkpoint; to be called on a plain OS thread.

    Args:
        slowest: how many of the longest waits to tell.
        patience: seconds that each carrier has to run the probe.

    Returns:
        Data for `json.dumps`, as docs/reference/dump.md describes.
    """
    return {
        "pid": os.getpid(),
        "engine": engine_name,
        "at": monotonic(),
        "carriers": [_carrier(scheduler, slowest, patience) for scheduler in list(carriers.values())],
        "calls": len(calls_under_way()),
    }


class _Probe(Fiber):
    """Notes how long it stood in the run queue."""

    name = "probe of the run queue"

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__(scheduler, None)
        self.ready_at: float | None = None
        self.ran_at: float | None = None
        self.has_run = allocate_lock()
        self.has_run.acquire()

    def enter(self) -> None:
        """Stand in the run queue (called on the carrier)."""
        self.ready_at = monotonic()
        self.scheduler.make_ready(self)

    def run(self) -> None:
        self.ran_at = monotonic()
        self.has_run.release()


def _carrier(scheduler: Scheduler, slowest: int, patience: float) -> Data:
    probe = _Probe(scheduler)
    scheduler.post(probe.enter)
    probe.has_run.acquire(True, patience)
    ready_at, ran_at = probe.ready_at, probe.ran_at
    # One that has not even heard of the probe does not switch.
    pinned = ready_at is None
    stack = stack_from(frames_of_os_threads().get(scheduler.ident)) if pinned else []
    add_source(stack)
    threads = list(threads_below(scheduler))
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
    # Before its first run it has not parked by itself.
    parked = [thread for thread in threads if thread.state is State.PARKED and thread.parked_at > -inf]
    return [
        {
            "name": thread.name,
            "parked_for": now - thread.parked_at,
            "waits_for": waits.of(thread, frame_of(thread, scheduler))[0],
        }
        for thread in nlargest(count, parked, key=lambda thread: -thread.parked_at)
    ]
