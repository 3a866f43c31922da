"""Make a failing schedule small.

First by delta debugging (Zeller and Hildebrandt: Simplifying and Isolating Failure-Inducing Input, TSE 2002): leave out
large parts, then smaller ones, down to single switches, as long as the run fails in the same way. Leaving out a switch
changes the numbers of later decisions, so the result may still be too large. So next, two stretches of a thread are
joined to one of their total length. Last, some of the smallest possible schedules are run, and schedules with one
switch less in which others are moved, or lead to other threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import groupby, islice, product

from .interleaving import Chooser, Interleaving
from .schedule import Schedule, Switch
from .strategies import Exhaustive, FixedSchedule

__all__ = ["shrink"]

# Runs a chooser; returns its schedule if that failed in the same way, else None.
Attempt = Callable[[Chooser], Schedule | None]
# The number of a thread, and the number of decisions for which it continues.
Stretch = tuple[int, int]

# Most preemptions of the smallest schedules to try, and how many of these to run.
FEW_PREEMPTIONS = 2
SMALL_SCHEDULES = 1_500
# Most schedules with moved switches to run, and by how many decisions all of them are moved.
MOST_MOVES = 1_000
NEAR = 8


def shrink(schedule: Schedule, attempt: Attempt) -> Schedule:
    """Find a schedule with few switches that still fails."""
    before = None
    while schedule != before:
        before = schedule
        schedule = _join_stretches(_leave_out(schedule, attempt), attempt)
    while len(schedule.switches) > 1:
        switches = len(schedule.switches)
        smaller = (
            _find_smaller(switches, attempt)
            or _move_one(schedule, attempt)
            or _move_all(schedule, attempt)
            or _redirect_all(schedule, attempt)
        )
        if smaller is None:
            break
        schedule = smaller
    return schedule


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


def _join_stretches(schedule: Schedule, attempt: Attempt) -> Schedule:
    """Join two stretches of a thread to one, as long as that saves switches."""
    while len(schedule.switches) > 1:
        recorder = _Recorder(FixedSchedule(schedule))
        if attempt(recorder) is None:
            # The schedule does not fail every time.
            break
        shorter = (attempt(_Stretches(joined)) for joined in _joined(recorder.stretches()))
        found = next((one for one in shorter if one is not None and len(one.switches) < len(schedule.switches)), None)
        if found is None:
            break
        schedule = found
    return schedule


def _joined(stretches: list[Stretch]) -> Iterator[list[Stretch]]:
    """Yield each way to join a stretch with the next or previous one of the same thread."""
    for place, (thread, length) in enumerate(stretches):
        others = [number for number, (other, _) in enumerate(stretches) if other == thread]
        here = others.index(place)
        for target in (*others[here + 1 : here + 2], *others[max(0, here - 1) : here]):
            joined = list(stretches)
            joined[target] = thread, stretches[target][1] + length
            del joined[place]
            yield joined


def _move_one(schedule: Schedule, attempt: Attempt) -> Schedule | None:
    """Leave out a switch and move another one."""
    recorder = _Recorder(FixedSchedule(schedule))
    attempt(recorder)
    return _first_smaller(schedule, _moved(schedule.switches, recorder.decisions), attempt)


def _first_smaller(schedule: Schedule, tries: Iterator[tuple[Switch, ...]], attempt: Attempt) -> Schedule | None:
    """Run `schedule` with the first of `tries` for its switches; return the first that fails with fewer switches."""
    for switches in islice(tries, MOST_MOVES):
        failing = attempt(FixedSchedule(replace(schedule, switches=switches)))
        if failing is not None and len(failing.switches) < len(schedule.switches):
            return failing
    return None


def _moved(switches: tuple[Switch, ...], decisions: int) -> Iterator[tuple[Switch, ...]]:
    for decision in range(decisions):
        for left_out in range(len(switches)):
            rest = switches[:left_out] + switches[left_out + 1 :]
            for place, (_, thread) in enumerate(rest):
                moved = dict((*rest[:place], *rest[place + 1 :]))
                if decision not in moved:
                    yield tuple(sorted({**moved, decision: thread}.items()))


def _move_all(schedule: Schedule, attempt: Attempt) -> Schedule | None:
    """Leave out a switch and move all others by a few decisions: the one left out has taken up some."""
    return _first_smaller(schedule, _shifted(schedule.switches), attempt)


def _redirect_all(schedule: Schedule, attempt: Attempt) -> Schedule | None:
    """Leave out a switch, move all others by a few decisions, and let them switch to other threads."""
    threads = range(max(thread for _, thread in schedule.switches) + 1)
    return _first_smaller(schedule, _redirected(schedule.switches, threads), attempt)


def _redirected(switches: tuple[Switch, ...], threads: range) -> Iterator[tuple[Switch, ...]]:
    """Yield the schedules of `_shifted` with all combinations of threads for their switches."""
    for moved in _shifted(switches):
        for others in product(threads, repeat=len(moved)):
            redirected = tuple((decision, thread) for (decision, _), thread in zip(moved, others, strict=True))
            if redirected != moved:
                yield redirected


def _shifted(switches: tuple[Switch, ...]) -> Iterator[tuple[Switch, ...]]:
    """Yield the schedules without one of `switches`, in which each other one is moved; small moves first."""
    for size in range(1, NEAR + 1):
        for left_out in range(len(switches)):
            rest = switches[:left_out] + switches[left_out + 1 :]
            for shifts in product(range(-size, size + 1), repeat=len(rest)):
                moved = {decision + shift: thread for (decision, thread), shift in zip(rest, shifts, strict=True)}
                if max(map(abs, shifts)) == size and len(moved) == len(rest) and min(moved) >= 0:
                    yield tuple(sorted(moved.items()))


class _Recorder:
    """Records the decisions of another chooser."""

    def __init__(self, chooser: Chooser) -> None:
        self._chooser = chooser
        self._chosen: list[int] = []

    def choose(self, decision: int, run: Interleaving, free: bool) -> int:
        index = self._chooser.choose(decision, run, free)
        self._chosen.append(run.candidates()[index])
        return index

    def ended(self, run: Interleaving) -> None:
        self._chooser.ended(run)

    @property
    def decisions(self) -> int:
        return len(self._chosen)

    def stretches(self) -> list[Stretch]:
        return [(thread, sum(1 for _ in decisions)) for thread, decisions in groupby(self._chosen)]


class _Stretches:
    """Lets each thread continue for as many decisions as its stretches say; a thread that cannot run is postponed."""

    def __init__(self, stretches: list[Stretch]) -> None:
        self._stretches = stretches

    def choose(self, decision: int, run: Interleaving, free: bool) -> int:
        candidates = run.candidates()
        for place, (thread, length) in enumerate(self._stretches):
            if thread in candidates:
                self._stretches[place : place + 1] = [(thread, length - 1)] if length > 1 else []
                return candidates.index(thread)
        return 0

    def ended(self, run: Interleaving) -> None:
        """Do nothing: later runs do not depend on this one."""


def _find_smaller(switches: int, attempt: Attempt) -> Schedule | None:
    strategy = Exhaustive(0, min(FEW_PREEMPTIONS, switches - 1))
    for _ in range(SMALL_SCHEDULES):
        chooser = strategy.next_run()
        failing = None if chooser is None else attempt(chooser)
        if failing is not None and len(failing.switches) < switches:
            return failing
    return None
