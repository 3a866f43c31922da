"""Strategies to choose schedules: random, by priorities that change a few times, or all schedules up to a bound.

A strategy makes a chooser for each run, until none is left. This module handles numbers of threads only, not threads.
"""

from __future__ import annotations

from random import Random
from typing import Literal, Protocol, get_args

from .interleaving import Chooser, Interleaving
from .schedule import Schedule, Switch

__all__ = ["STRATEGIES", "Exhaustive", "FixedSchedule", "Strategy", "StrategyName"]

StrategyName = Literal["random", "pct", "exhaustive"]


class Strategy(Protocol):
    """Makes the chooser of each run."""

    def next_run(self) -> Chooser | None:
        """Make the next chooser; None if there is nothing left to try."""


class FixedSchedule:
    """A chooser that follows a schedule."""

    def __init__(self, schedule: Schedule) -> None:
        self._switches = dict(schedule.switches)
        self._wraps = schedule.wraps

    def choose(self, decision: int, run: Interleaving, free: bool) -> int:
        """Choose as `Chooser` requires."""
        wanted = self._switches.get(decision)
        if wanted is None:
            return 0
        candidates = run.candidates()
        if wanted in candidates:
            return candidates.index(wanted)
        return wanted % len(candidates) if self._wraps else 0

    def ended(self, run: Interleaving) -> None:
        """Do nothing: later runs do not depend on this one."""


# --- random

# Preemption probabilities, one per run in turn. Short and long programs have bugs at each of these rates.
RATES = (1 / 2, 1 / 4, 1 / 16, 1 / 64)


class RandomWalk:
    """Preempts at every decision with a probability that is constant during a run."""

    def __init__(self, seed: int, max_preemptions: int) -> None:
        self._seed = seed
        self._runs = 0

    def next_run(self) -> Chooser:
        """Return a chooser with a new seed; there is always one more."""
        self._runs += 1
        random = Random(f"{self._seed}/{self._runs}")
        return _RandomChooser(random, RATES[self._runs % len(RATES)])


class _RandomChooser:
    def __init__(self, random: Random, rate: float) -> None:
        self._random = random.random
        self._rate = rate

    def choose(self, decision: int, run: Interleaving, free: bool) -> int:
        if free:
            return int(self._random() * len(run.candidates()))
        if self._random() >= self._rate:
            return 0
        return 1 + int(self._random() * (len(run.candidates()) - 1))

    def ended(self, run: Interleaving) -> None:
        """Do nothing: the next run has another seed."""


# --- priorities


class Priorities:
    """PCT, of Burckhardt, Kothari, Musuvathi and Nagarakatte: A Randomized Scheduler with Probabilistic Guarantees of
    Finding Bugs, ASPLOS 2010.

    Each thread has a random priority, and the thread with the highest that can run does. At d - 1 random points the
    priority of the running thread falls below all others. A bug that needs d events in a certain order is found in one
    run with a probability of at least 1 / (n * k ** (d - 1)), for n threads and k decisions; k is taken from the
    longest run so far. A thread that yields falls below the others too, and a run that is four times as long as the
    previous ones continues at random: otherwise a thread that waits in a loop for one of lower priority never ends.
    """  # noqa: D205  # the authors do not fit the first line

    def __init__(self, seed: int, max_preemptions: int) -> None:
        self._seed = seed
        self._preemptions = max_preemptions
        self._runs = 0
        self.longest = 1

    def next_run(self) -> Chooser:
        """Return a chooser with a new seed; there is always one more."""
        self._runs += 1
        random = Random(f"{self._seed}/{self._runs}")
        points = {random.randrange(self.longest): level for level in range(self._preemptions)}
        return _PriorityChooser(self, random, points, 4 * self.longest + 100)


class _PriorityChooser:
    def __init__(self, strategy: Priorities, random: Random, points: dict[int, int], patience: int) -> None:
        self._strategy = strategy
        self._random = random
        self._points = points
        self._patience = patience
        self._priorities: dict[int, float] = {}
        self._lowest = -len(points)

    def choose(self, decision: int, run: Interleaving, free: bool) -> int:
        candidates = run.candidates()
        if decision >= self._patience:
            return self._random.randrange(len(candidates))
        for number in candidates:
            if number not in self._priorities:
                self._priorities[number] = 1 + self._random.random()
        if not free and decision in self._points:
            # Below all others. Among threads that fell, the order is by level, which is random.
            self._priorities[candidates[0]] = -self._points[decision]
        if run.yielded is not None:
            self._lowest -= 1
            self._priorities[run.yielded] = self._lowest
        return max(range(len(candidates)), key=lambda index: self._priorities[candidates[index]])

    def ended(self, run: Interleaving) -> None:
        self._strategy.longest = max(self._strategy.longest, run.decisions)


# --- exhaustive

# How many decisions in a row a thread may continue while others could run. A program with more decisions has too many
# schedules to run all of them: a single preemption alone gives as many.
PATIENCE = 1000


class Exhaustive:
    """Every schedule with at most so many preemptions, those with few first; an idea of CHESS (Musuvathi and
    Qadeer: Iterative Context Bounding for Systematic Testing of Multithreaded Programs, PLDI 2007).

    Each schedule is run once: each alternative of a run after its last switch is another schedule. After `PATIENCE`
    decisions in a row a thread gives way to the one that has been ready longest. That does not count as a preemption,
    because the thread may wait in a loop for another one.
    """  # noqa: D205  # the authors do not fit the first line

    def __init__(self, seed: int, max_preemptions: int) -> None:
        # The schedules still to be run, by number of preemptions.
        self._waiting: list[list[tuple[Switch, ...]]] = [[] for _ in range(max_preemptions + 1)]
        self._waiting[0].append(())
        self._level = 0

    def next_run(self) -> Chooser | None:
        """Return a chooser for the next schedule."""
        while self._level < len(self._waiting):
            if self._waiting[self._level]:
                return _ExhaustiveChooser(self, self._waiting[self._level].pop())
            self._level += 1
        return None

    def add(self, switches: tuple[Switch, ...], preempts: bool) -> None:
        """Add an alternative of the run that was just made."""
        level = self._level + preempts
        if level < len(self._waiting):
            self._waiting[level].append(switches)


class _ExhaustiveChooser:
    def __init__(self, strategy: Exhaustive, switches: tuple[Switch, ...]) -> None:
        self._strategy = strategy
        self._fixed = dict(switches)
        self._from = switches[-1][0] + 1 if switches else 0
        self._others: list[tuple[tuple[Switch, ...], bool]] = []
        self._running: int | None = None
        self._in_a_row = 0

    def choose(self, decision: int, run: Interleaving, free: bool) -> int:
        candidates = run.candidates()
        gives_way = self._gives_way(None if free else candidates[0])
        if decision < self._from:
            wanted = self._fixed.get(decision, candidates[0])
            return candidates.index(wanted) if wanted in candidates else 0
        chosen = 1 if gives_way else 0
        preempts = not free and not gives_way
        # The alternatives include the switches of this run up to here, those of threads that gave way too.
        self._others += [((*run.switches, (decision, number)), preempts) for number in candidates[chosen + 1 :]]
        return chosen

    def _gives_way(self, running: int | None) -> bool:
        """Return whether the running thread, if there is one, has continued for long enough."""
        self._in_a_row = self._in_a_row + 1 if running == self._running else 0
        self._running = running
        return running is not None and self._in_a_row >= PATIENCE

    def ended(self, run: Interleaving) -> None:
        for switches, preempts in reversed(self._others):
            self._strategy.add(switches, preempts)


STRATEGIES: dict[str, type[RandomWalk] | type[Priorities] | type[Exhaustive]] = dict(
    zip(get_args(StrategyName), (RandomWalk, Priorities, Exhaustive), strict=True)
)
