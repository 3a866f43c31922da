"""Make a failing schedule small.

First by delta debugging (Zeller and Hildebrandt: Simplifying and Isolating Failure-Inducing Input, TSE 2002): leave out
large parts, then smaller ones, down to single switches, as long as the run fails in the same way. What is left may
still be larger than need be, since without one switch the later decisions have other numbers. So some of the smallest
schedules there are are run as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from .interleaving import Chooser
from .schedule import Schedule
from .strategies import Exhaustive, FixedSchedule

__all__ = ["shrink"]

# Runs a chooser; the schedule that was run if that failed in the same way, else None.
Attempt = Callable[[Chooser], Schedule | None]

# Schedules with up to so many preemptions, and how many of them to run.
FEW_PREEMPTIONS = 2
SMALL_SCHEDULES = 300


def shrink(schedule: Schedule, attempt: Attempt) -> Schedule:
    """Find a schedule with few switches that still fails."""
    schedule = _leave_out(schedule, attempt)
    if len(schedule.switches) <= 1:
        return schedule
    return _find_smaller(len(schedule.switches), attempt) or schedule


def _leave_out(schedule: Schedule, attempt: Attempt) -> Schedule:
    size = max(1, len(schedule.switches) // 2)
    while schedule.switches:
        start, changed = 0, False
        while start < len(schedule.switches):
            switches = schedule.switches
            shorter = replace(schedule, switches=switches[:start] + switches[start + size :])
            failing = attempt(FixedSchedule(shorter))
            if failing is not None and len(failing.switches) < len(switches):
                schedule, changed = failing, True
            else:
                start += size
        if size == 1 and not changed:
            break
        size = max(1, size // 2)
    return schedule


def _find_smaller(switches: int, attempt: Attempt) -> Schedule | None:
    strategy = Exhaustive(0, min(FEW_PREEMPTIONS, switches - 1))
    for _ in range(SMALL_SCHEDULES):
        chooser = strategy.next_run()
        failing = None if chooser is None else attempt(chooser)
        if failing is not None and len(failing.switches) < switches:
            return failing
    return None
