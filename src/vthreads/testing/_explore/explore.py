"""`explore`: run ordinary code with threads under many schedules; `replay`: run it under one schedule."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from random import SystemRandom
from typing import Any

from ... import _patching as patching
from ..._core.arguments import check_function, checked_count
from ..._core.current import on_carrier
from ..._core.exceptions import set_traceback
from ..._core.originals import allocate_lock
from ..._os_threads.offload import offload
from ..._patching.holders import has_frozen
from .. import _standard_time as standard_time
from .interleaving import Chooser
from .operations import Operations
from .report import Exploration, ScheduleFailed
from .run import Failure, Trial
from .schedule import Points, Schedule
from .shrinking import shrink as shrink_schedule
from .strategies import STRATEGIES, FixedSchedule, Strategy, StrategyName
from .tracing import Tracer, make_tracer
from .user_code import UserCode
from .watchdog import Watchdog

__all__ = ["explore", "replay"]

# Number of runs between two garbage collections; a collection during a run would make it irreproducible.
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
    """Call `fn` repeatedly, each time with its threads in another order, until it fails. Not a checkpoint.

    `fn` is ordinary code: it creates its objects, starts `threading.Thread`s, joins them and asserts. The threads are
    virtual ones on a virtual clock, as with `patch(threads=True)`. A schedule fails if `fn` or a thread raises, if no
    thread can continue (the report shows which waits for which), or if it does not end.

    Args:
        schedules: number of runs.
        seed: seed of the random choices; None: a new one, which a failure reports.
        strategy: "random": preempt with a probability that differs between runs. "pct": random priorities, which find a
            bug that depends on the order of `d = max_preemptions + 1` events in each run with a probability of at least
            `1 / (n * k ** (d - 1))`, for `n` threads and `k` decisions (Burckhardt et al., ASPLOS 2010). "exhaustive":
            all schedules with up to `max_preemptions` preemptions, few first (as CHESS, PLDI 2007). If a thread gives
            way after 1000 decisions in a row, that does not count as a preemption.
        points: where a running thread may be stopped. "checkpoints": where it acquires or releases a lock, waits, or
            starts a thread. "lines": also before each line of the program. "opcodes": also before each instruction of
            the program that other threads can notice.
        max_preemptions: see `strategy`; "random" has no limit.
        modules: prefixes of the names of the modules that are stopped at lines or instructions; None: all but the
            standard library, installed packages and this one. The distribution to which `fn` belongs is included even
            if it is installed. A report names the installed packages that ran without being stopped.
        max_points: number of points after which a run counts as endless.
        max_seconds: real seconds from one point to the next after which a run counts as pinned: in a loop without a
            point, or in a call that blocks the OS thread.
        shrink: remove switches from the failing schedule as long as it still fails.

    Returns:
        The counts, if no schedule failed.

    Raises:
        TypeError: calling `fn` would have no effect: it is not callable, or a coroutine or generator function.
        ScheduleFailed: a schedule failed; `replay` can run it again.
        RuntimeError: another exploration is in progress.
    """
    __tracebackhide__ = True
    check_function(fn, "explore")
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy={strategy!r}: pass one of {', '.join(STRATEGIES)}")
    schedules = checked_count(schedules, "schedules", 1)
    max_preemptions = checked_count(max_preemptions, "max_preemptions", 0)
    chosen_seed = SystemRandom().randrange(2**32) if seed is None else seed
    search = _Search(fn, STRATEGIES[strategy](chosen_seed, max_preemptions), chosen_seed)
    with _trial_environment(fn, Schedule(points).points, modules, max_points, max_seconds) as environment:
        try:
            found: Exploration = environment.call(search.run, environment, schedules, shrink)
        except ScheduleFailed as failed:
            # The traceback of the exploration itself says nothing about the program.
            set_traceback(failed, None)
            raise
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
        schedule: from a `ScheduleFailed`, or its text.
        modules, max_points, max_seconds: as passed to `explore`.

    Raises:
        ScheduleFailed: the schedule fails.
    """
    __tracebackhide__ = True
    check_function(fn, "replay")
    wanted = Schedule.parse(schedule) if isinstance(schedule, str) else schedule
    with _trial_environment(fn, wanted.points, modules, max_points, max_seconds) as environment:
        trial = environment.call(environment.try_out, fn, FixedSchedule(wanted), True)
    if trial.failure is not None:
        raise ScheduleFailed(
            trial.failure, trial.schedule(wanted.points), trial.segments, passed_over=environment.passed_over
        )


class _TrialEnvironment:
    """The environment of trials: a patched and instrumented standard library, a tracer, and a watchdog."""

    def __init__(
        self, points: Points, operations: Operations, tracer: Tracer, max_points: int, watchdog: Watchdog
    ) -> None:
        self.points: Points = points
        self._operations = operations
        self._tracer = tracer
        self._max_points = max_points
        self._watchdog = watchdog

    @property
    def passed_over(self) -> tuple[str, ...]:
        """Names of the installed packages whose code ran and is not stopped at lines or instructions."""
        return tuple(sorted(self._operations.user_code.passed_over))

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call `function` where runtimes can be started: on an OS thread that is not a carrier."""
        return offload(function, *args) if on_carrier() else function(*args)

    def try_out(self, fn: Callable[[], Any], chooser: Chooser, watched: bool = False) -> Trial:
        """Run `fn` once."""
        trial = Trial(chooser, self._operations, self._tracer, self._max_points, self._watchdog, watched)
        trial.run(fn)
        return trial


@contextmanager
def _trial_environment(
    fn: Callable[..., Any], points: Points, modules: Iterable[str] | None, max_points: int, max_seconds: float
) -> Iterator[_TrialEnvironment]:
    limit, watchdog = checked_count(max_points, "max_points", 1), Watchdog(max_seconds)
    if not _exploring.acquire(False):
        raise RuntimeError("an exploration is in progress in this process; wait for its end before starting another")
    user_code = UserCode(modules, fn)
    operations = Operations(user_code, points == "opcodes")
    try:
        # Freeze after patching: patching could not find frozen locks that it must replace.
        with _patched(), _frozen(), operations.instrumented(), watchdog.awake():
            tracer = make_tracer(points, user_code)
            try:
                yield _TrialEnvironment(points, operations, tracer, limit, watchdog)
            finally:
                tracer.close()
    finally:
        _exploring.release()


@contextmanager
def _frozen() -> Iterator[None]:
    """Exclude all existing objects from garbage collections during the block."""
    thaws = not has_frozen()
    gc.freeze()
    try:
        yield
    finally:
        if thaws:
            gc.unfreeze()


@contextmanager
def _patched() -> Iterator[None]:
    """Make `threading.Thread` start virtual threads during the block; restore the previous state afterwards."""
    state = patching.state
    active, threads, refused = state.active, state.threads, state.refused
    try:
        # It raises if the program has made an error of its warning, after it has patched everything.
        patching.patch(threads=True)
        # Once here, because each run would search for references to these functions again.
        standard_time.put_in_place()
        try:
            yield
        finally:
            standard_time.take_back()
    finally:
        if not active:
            patching.unpatch()
        elif not threads:
            patching.unpatch_threads()
        state.refused = refused


class _Search:
    """Runs schedules until one fails."""

    def __init__(self, fn: Callable[[], Any], strategy: Strategy, seed: int) -> None:
        self._fn = fn
        self._strategy = strategy
        self._seed = seed
        self._seen: set[Schedule] = set()
        self._runs = 0
        self._decisions = 0
        self._started = 0.0

    def run(self, environment: _TrialEnvironment, schedules: int, shrink: bool) -> Exploration:
        self._started = time.perf_counter()
        while self._runs < schedules:
            chooser = self._strategy.next_run()
            if chooser is None:
                return self._exploration(environment, complete=True)
            trial = environment.try_out(self._fn, chooser)
            self._count(trial, environment.points)
            if trial.failure is not None:
                raise self._failed(environment, trial, trial.failure, shrink)
        return self._exploration(environment, complete=False)

    def _count(self, trial: Trial, points: Points) -> None:
        self._runs += 1
        self._seen.add(trial.schedule(points))
        self._decisions = max(self._decisions, trial.interleaving.decisions)
        if self._runs % RUNS_PER_COLLECTION == 0:
            gc.collect()

    def _exploration(self, environment: _TrialEnvironment, complete: bool) -> Exploration:
        seconds = time.perf_counter() - self._started
        return Exploration(self._runs, len(self._seen), self._decisions, seconds, complete, environment.passed_over)

    def _failed(self, environment: _TrialEnvironment, trial: Trial, failure: Failure, shrink: bool) -> ScheduleFailed:
        exploration, found = self._exploration(environment, complete=False), trial.schedule(environment.points)

        def attempt(chooser: Chooser) -> Schedule | None:
            again = environment.try_out(self._fn, chooser)
            return again.schedule(environment.points) if failure.is_like(again.failure) else None

        # Do not shrink a pinned run: each attempt would take `max_seconds` again.
        smallest = shrink_schedule(found, attempt) if shrink and failure.kind != "pinned" else found
        last = environment.try_out(self._fn, FixedSchedule(smallest), True)
        reproducible = failure.is_like(last.failure)
        shown = last.failure if last.failure is not None and reproducible else failure
        return ScheduleFailed(
            shown, smallest, last.segments, found, self._seed, exploration, reproducible, environment.passed_over
        )
