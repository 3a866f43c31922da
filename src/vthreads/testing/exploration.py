"""`explore`: run ordinary code with threads under many schedules; `replay`: run it under one."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from random import SystemRandom
from typing import Any

from .. import patching
from .._core.current import on_carrier
from .._core.originals import allocate_lock
from ..offload import offload
from ..patching.instances import has_frozen
from . import standard_time
from .findings import Exploration, ScheduleFailed
from .interleaving import Chooser
from .operations import Meetings
from .schedule import Points, Schedule
from .shrinking import shrink as shrink_schedule
from .strategies import STRATEGIES, FixedSchedule, Strategy, StrategyName
from .tracing import Tracer, make_tracer
from .trial import Failure, Trial
from .user_code import UserCode
from .watchdog import Watchdog

__all__ = ["explore", "replay"]

# Runs between two collections of garbage, which has to wait for the end of a run.
RUNS_PER_COLLECTION = 100

_exploring = allocate_lock()


def explore(
    fn: Callable[[], Any],
    *,
    schedules: int = 1000,
    seed: int | None = None,
    strategy: StrategyName = "random",
    points: Points = "opcodes",
    max_preemptions: int = 2,
    modules: Iterable[str] | None = None,
    max_points: int = 100_000,
    max_seconds: float = 10.0,
    shrink: bool = True,
) -> Exploration:
    """Call `fn` again and again, each time with its threads in another order, until it fails. Not a checkpoint.

    `fn` is ordinary code: it makes its objects, starts `threading.Thread`s, joins them and asserts. The threads are
    virtual ones on a virtual clock, as with `patch(threads=True)`. A schedule fails if `fn` or a thread raises, if
    nobody can go on (with who waits for whom), or if it does not end.

    Args:
        schedules: how many to run.
        seed: what the schedules are drawn from; None: a new one, which a failure tells.
        strategy: "random": preempt with a probability that differs between runs. "pct": random priorities, which find a
            bug that depends on the order of `d = max_preemptions + 1` events in each run with a probability of at least
            `1 / (n * k ** (d - 1))`, for `n` threads and `k` decisions (Burckhardt et al., ASPLOS 2010). "exhaustive":
            all schedules with up to `max_preemptions` preemptions, those with few first (as CHESS, PLDI 2007); that a
            thread lets others run after 1000 decisions in a row is none.
        points: where a running thread may be stopped. "checkpoints": where it takes or gives back a lock, waits, starts
            a thread. "lines": before each line of the program as well. "opcodes": before each instruction of it that
            others can notice.
        max_preemptions: see `strategy`; "random" has no limit.
        modules: prefixes of the names of the modules that are stopped at lines or instructions; None: all but the
            standard library, installed packages and this one.
        max_points: points that one run may pass before it counts as one that does not end.
        max_seconds: real time that one run may take from one point to the next before it counts as one that is pinned:
            in a loop without a point, or in a call that blocks the OS thread.
        shrink: leave out switches of the failing schedule that it fails without.

    Returns:
        What was tried, if nothing failed.

    Raises:
        ScheduleFailed: a schedule failed; it can be run again by `replay`.
        RuntimeError: an exploration is under way already.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy={strategy!r}: choose one of {', '.join(STRATEGIES)}")
    chosen_seed = SystemRandom().randrange(2**32) if seed is None else seed
    search = _Search(fn, STRATEGIES[strategy](chosen_seed, max_preemptions), chosen_seed)
    with _laboratory(Schedule(points).points, modules, max_points, max_seconds) as laboratory:
        found: Exploration = laboratory.call(search.run, laboratory, schedules, shrink)
        return found


def replay(
    fn: Callable[[], Any],
    schedule: Schedule | str,
    *,
    modules: Iterable[str] | None = None,
    max_points: int = 100_000,
    max_seconds: float = 10.0,
) -> None:
    """Call `fn` once, under `schedule`. Not a checkpoint.

    Args:
        schedule: of a `ScheduleFailed`, or what it prints.
        modules, max_points, max_seconds: as given to `explore`.

    Raises:
        ScheduleFailed: it fails.
    """
    wanted = Schedule.parse(schedule) if isinstance(schedule, str) else schedule
    with _laboratory(wanted.points, modules, max_points, max_seconds) as laboratory:
        trial = laboratory.call(laboratory.try_out, fn, FixedSchedule(wanted), True)
    if trial.failure is not None:
        raise ScheduleFailed(trial.failure, trial.schedule(wanted.points), trial.segments)


class _Laboratory:
    """Where trials are made: with the standard library patched and instrumented, a tracer, and a watchdog."""

    def __init__(self, points: Points, meetings: Meetings, tracer: Tracer, max_points: int, watchdog: Watchdog) -> None:
        self.points: Points = points
        self._meetings = meetings
        self._tracer = tracer
        self._max_points = max_points
        self._watchdog = watchdog

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call `function` where runtimes can be started: not on a carrier."""
        return offload(function, *args) if on_carrier() else function(*args)

    def try_out(self, fn: Callable[[], Any], chooser: Chooser, watched: bool = False) -> Trial:
        """Run `fn` once."""
        trial = Trial(chooser, self._meetings, self._tracer, self._max_points, self._watchdog, watched)
        trial.run(fn)
        return trial


@contextmanager
def _laboratory(
    points: Points, modules: Iterable[str] | None, max_points: int, max_seconds: float
) -> Iterator[_Laboratory]:
    watchdog = Watchdog(max_seconds)
    if not _exploring.acquire(False):
        raise RuntimeError("an exploration is under way in this process; one cannot be made inside another")
    user_code = UserCode(modules)
    meetings = Meetings(user_code, points == "opcodes")
    try:
        # What is frozen is not found any more by those who look for the locks that are to be exchanged.
        with _patched(), _frozen(), meetings.instrumented(), watchdog.awake():
            tracer = make_tracer(points, user_code)
            try:
                yield _Laboratory(points, meetings, tracer, max_points, watchdog)
            finally:
                tracer.close()
    finally:
        _exploring.release()


@contextmanager
def _frozen() -> Iterator[None]:
    """While inside, collections of garbage leave out what there was before."""
    thaws = not has_frozen()
    gc.freeze()
    try:
        yield
    finally:
        if thaws:
            gc.unfreeze()


@contextmanager
def _patched() -> Iterator[None]:
    """While inside, `threading.Thread` starts virtual threads; afterwards all is as it was."""
    state = patching.state
    active, threads, refused = state.active, state.threads, state.refused
    patching.patch(threads=True)
    # Here, and not by each run, which would look for all names of these functions again.
    standard_time.put_in_place()
    try:
        yield
    finally:
        standard_time.take_back()
        if not active:
            patching.unpatch()
        elif not threads:
            patching.unpatch_threads()
        state.refused = refused


class _Search:
    """Run schedules until one fails."""

    def __init__(self, fn: Callable[[], Any], strategy: Strategy, seed: int) -> None:
        self._fn = fn
        self._strategy = strategy
        self._seed = seed
        self._seen: set[Schedule] = set()
        self._runs = 0
        self._decisions = 0
        self._started = 0.0

    def run(self, laboratory: _Laboratory, schedules: int, shrink: bool) -> Exploration:
        self._started = time.perf_counter()
        while self._runs < schedules:
            chooser = self._strategy.next_run()
            if chooser is None:
                return self._exploration(complete=True)
            trial = laboratory.try_out(self._fn, chooser)
            self._count(trial, laboratory.points)
            if trial.failure is not None:
                raise self._failed(laboratory, trial, trial.failure, shrink)
        return self._exploration(complete=False)

    def _count(self, trial: Trial, points: Points) -> None:
        self._runs += 1
        self._seen.add(trial.schedule(points))
        self._decisions = max(self._decisions, trial.interleaving.decisions)
        if self._runs % RUNS_PER_COLLECTION == 0:
            gc.collect()

    def _exploration(self, complete: bool) -> Exploration:
        seconds = time.perf_counter() - self._started
        return Exploration(self._runs, len(self._seen), self._decisions, seconds, complete)

    def _failed(self, laboratory: _Laboratory, trial: Trial, failure: Failure, shrink: bool) -> ScheduleFailed:
        exploration, found = self._exploration(complete=False), trial.schedule(laboratory.points)

        def attempt(chooser: Chooser) -> Schedule | None:
            again = laboratory.try_out(self._fn, chooser)
            return again.schedule(laboratory.points) if failure.is_like(again.failure) else None

        # A run that is pinned takes its time, and would again and again.
        smallest = shrink_schedule(found, attempt) if shrink and failure.kind != "pinned" else found
        last = laboratory.try_out(self._fn, FixedSchedule(smallest), True)
        reproducible = failure.is_like(last.failure)
        shown = last.failure if last.failure is not None and reproducible else failure
        return ScheduleFailed(shown, smallest, last.segments, found, self._seed, exploration, reproducible)
