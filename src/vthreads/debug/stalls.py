"""Stalls: a carrier that does not switch, so that all others on it wait. Who does it, where, and who waits meanwhile.

An OS thread of the runtime's own looks at the carriers every quarter of the threshold. It needs the GIL for that: a C
function that keeps it is noticed when it returns.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from math import inf
from types import FrameType
from typing import Any, NamedTuple

from .._core.clock import MonotonicClock
from .._core.current import carriers
from .._core.deadlock import threads_below
from .._core.engine import Scheduler, State
from .._core.engine.states import SLICE
from .._core.originals import sleep
from .._core.runtime import Carrier, frames_of_os_threads, start_hooks
from .._core.spawn_site import first_frame_outside
from ..ticker import Ticker
from .callee import NAMELESS, c_function_of

__all__ = ["Stall", "StallMonitor", "max_stall", "watch_stalls"]

THRESHOLD = 0.1
# A loop that calls a C function is mostly seen at the call: so many more looks, after so many seconds each, show
# whether it is elsewhere in between.
CLOSE_LOOKS = 40
CLOSE_LOOK_AFTER = 0.001


class Stall(NamedTuple):
    """A look at a carrier that has not switched for longer than the threshold.

    Attributes:
        carrier: name of its root.
        thread: name of the virtual thread that runs there.
        seconds: since it switched last, at the time of the look.
        stack: where it is, without the runtime's own frames.
        function: the C function that it is in, "time.sleep"; "….sleep", or "…", of what has no name. None if it runs
            Python code.
        ready, parked: virtual threads of the carrier that could have run, and that are parked.
    """

    carrier: str
    thread: str
    seconds: float
    stack: traceback.StackSummary
    function: str | None
    ready: int
    parked: int

    def __str__(self) -> str:
        where = "runs Python code"
        if self.function is not None:
            verb = "may be" if self.function.startswith(NAMELESS) else "is"
            where = f"is in {self.function}(), which {verb} C code"
        advice = (
            "vthreads.offload() makes the call on an OS thread"
            if self.function
            else "vthreads.checkpoint() lets the others run"
        )
        return (
            f"carrier {self.carrier!r} has not switched for {self.seconds:.3f} s: {self.thread!r} {where}, while "
            f"{self.ready} virtual threads are ready and {self.parked} are parked; {advice}\n"
            + "".join(self.stack.format()).rstrip()
        )


class _Run:
    """The time from one switch of a carrier to the next, as the monitor has seen it."""

    __slots__ = ("is_told", "moves", "place", "since", "switches")

    def __init__(self, switches: int, since: float) -> None:
        self.switches = switches
        self.since = since
        self.is_told = False
        # Where it was at the last look, and whether that changes: then it computes.
        self.place: tuple[Any, int] | None = None
        self.moves = False


class StallMonitor:
    """Looks for stalls, and tells of each place once. A context manager that stops it.

    Args:
        threshold: seconds.
        report: what is called with a `Stall`, on an OS thread of the runtime's own; it must not block.
        now: what tells the time, in seconds.
    """

    def __init__(
        self, threshold: float, report: Callable[[Stall], object], now: Callable[[], float] = time.monotonic
    ) -> None:
        if not 0 < threshold < inf:
            raise ValueError(f"threshold={threshold!r}: it takes a number of seconds above 0")
        self.threshold = threshold
        self._report = report
        self._now = now
        self._began_at = now()
        self._looked_at = -inf
        self._runs: dict[Scheduler, _Run] = {}
        self._places: set[tuple[str, int | None]] = set()
        self._ticker = Ticker(threshold / 4, self.look)

    def __enter__(self) -> StallMonitor:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Look again and again. Not a checkpoint; thread-safe."""
        self._ticker.start()

    def stop(self) -> None:
        """Look no more. Not a checkpoint; thread-safe."""
        self._ticker.stop()

    def look(self) -> None:
        """Look at every carrier, once. Not a checkpoint."""
        now = self._now()
        runs = {}
        for scheduler in list(carriers.values()):
            run = self._run_of(scheduler, now)
            if run is not None:
                runs[scheduler] = run
                if now - run.since >= self.threshold / 2:
                    self._look_at(scheduler, run, now)
        self._runs, self._looked_at = runs, now

    def _run_of(self, scheduler: Scheduler, now: float) -> _Run | None:
        """The run that `scheduler` is in; None if it polls, or switches while it is looked at."""
        before = scheduler.switches
        slice_end = scheduler.slice_end
        if scheduler.running is None or scheduler.switches != before:
            return None
        run = self._runs.get(scheduler)
        if run is None or run.switches != before:
            began = slice_end - SLICE if type(scheduler.clock) is MonotonicClock else -inf
            # With another clock, and among threads that only spawn, a slice does not tell when the run began.
            since = began if self._looked_at < began <= now else now
            run = _Run(before, max(since, self._began_at))
        return run

    def _look_at(self, scheduler: Scheduler, run: _Run, now: float) -> None:
        innermost = frames_of_os_threads().get(scheduler.ident)
        if _starts(innermost):
            # It patches the standard library, and nobody is there yet to wait for it.
            run.since = now
            return
        frame = first_frame_outside(innermost)
        thread = scheduler.running
        if frame is None or thread is None or scheduler.switches != run.switches:
            return
        place = frame.f_code, frame.f_lasti
        run.moves |= run.place is not None and run.place != place
        run.place = place
        if now - run.since < self.threshold or run.is_told:
            return
        run.is_told = True
        stall = self._stall(scheduler, thread, frame, run, now)
        where = stall.stack[-1].filename, stall.stack[-1].lineno
        if where not in self._places:
            self._places.add(where)
            self._report(stall)

    def _stall(self, scheduler: Scheduler, thread: Any, frame: FrameType, run: _Run, now: float) -> Stall:
        # Both of the frame as it is now, before it is looked at again.
        stack, function = _stack_from(frame), None if run.moves else c_function_of(frame)
        if function is not None and self._goes_round(scheduler, run):
            function = None
        return Stall(
            carrier=scheduler.root.name,
            thread=thread.name,
            seconds=now - run.since,
            stack=stack,
            function=function,
            ready=len(scheduler._ready),
            parked=sum(thread.state is State.PARKED for thread in threads_below(scheduler)),
        )

    def _goes_round(self, scheduler: Scheduler, run: _Run) -> bool:
        """Whether it leaves its place and comes back: a call that is over by now does only the first."""
        was_elsewhere = False
        for _ in range(CLOSE_LOOKS):
            sleep(CLOSE_LOOK_AFTER)
            frame = first_frame_outside(frames_of_os_threads().get(scheduler.ident))
            if frame is None or scheduler.switches != run.switches:
                return False
            is_there = run.place == (frame.f_code, frame.f_lasti)
            if is_there and was_elsewhere:
                return True
            was_elsewhere |= not is_there
        return False


def _starts(frame: FrameType | None) -> bool:
    """Whether the runtime is starting there."""
    while frame is not None and frame.f_code is not Carrier.start.__code__:
        frame = frame.f_back
    return frame is not None


def _stack_from(frame: FrameType | None) -> traceback.StackSummary:
    frames = []
    while frame is not None:
        frames.append((frame, frame.f_lineno))
        frame = first_frame_outside(frame.f_back)
    return traceback.StackSummary.extract(reversed(frames), lookup_lines=False)


def _print(stall: Stall) -> None:
    try:
        sys.stderr.write(f"vthreads: {stall}\n")
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        # Closed or broken: there is nowhere left to say so.
        pass


def watch_stalls(threshold: float = THRESHOLD, report: Callable[[Stall], object] = _print) -> StallMonitor:
    """Report every place where a carrier does not switch for longer than `threshold`. Not a checkpoint; thread-safe.

    Each place once, with the stack that blocks, the C function if it is one, and how many virtual threads were ready
    and parked meanwhile. On all carriers, those included that start later. `VTHREADS_STALLS=0.1` in the environment and
    `python -m vthreads run --debug` do the same for a whole program.

    Args:
        threshold: seconds.
        report: called with a `Stall` on an OS thread of the runtime's own, where it must not block; by default it is
            written to stderr.

    Returns:
        The monitor: a context manager, with `stop()`.

    Raises:
        ValueError: `threshold` is not above 0.
    """
    monitor = StallMonitor(threshold, report)
    monitor.start()
    return monitor


class max_stall(AbstractContextManager["max_stall"]):  # noqa: N801  used like a function: `with max_stall(0.1):`
    """Fail if a carrier does not switch for longer than `seconds` inside the `with` block. Entering is no checkpoint.

    What is measured is real time, whatever clock the runtime has: allow for a busy machine.

    Args:
        seconds: the longest stall that is no failure.

    Raises:
        AssertionError: at the end of the block, with the places. If the block itself raises, they are a note on that.
    """

    def __init__(self, seconds: float) -> None:
        self.stalls: list[Stall] = []
        self._monitor = StallMonitor(seconds, self.stalls.append)

    def __enter__(self) -> max_stall:
        self._monitor.start()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._monitor.stop()
        # What has kept the GIL until now was noticed by nobody.
        self._monitor.look()
        if not self.stalls:
            return
        told = "\n".join(map(str, self.stalls))
        if error is None:
            raise AssertionError(f"longer than {self._monitor.threshold} s: {told}")
        error.add_note(f"longer than {self._monitor.threshold} s: {told}")


def _watch_if_asked(scheduler: Scheduler, patch: bool) -> None:
    global _watched
    wanted = os.environ.get("VTHREADS_STALLS")
    if wanted and _watched is None:
        try:
            _watched = watch_stalls(float(wanted))
        except ValueError:
            raise ValueError(
                f"VTHREADS_STALLS={wanted!r}: it takes a number of seconds above 0, 0.1 for example"
            ) from None


_watched: StallMonitor | None = None
start_hooks.append(_watch_if_asked)
