"""Detect stalls: a carrier that does not switch, so that all its other threads wait. Reports the thread and its stack.

A private OS thread checks the carriers every quarter of the threshold. It needs the GIL for that: a C function that
holds the GIL is noticed only when it returns.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import FrameType
from typing import Any, NamedTuple

from .._core.arguments import checked_period
from .._core.carrier import Carrier
from .._core.current import carriers
from .._core.deadlock import threads_on
from .._core.engine import Scheduler, State
from .._core.exceptions import add_note
from .._core.originals import sleep
from .._core.os_thread_kinds import frames_of_os_threads
from .._core.spawn_site import first_frame_outside
from .._event_loops.guests import Guest, guests
from .._os_threads.ticker import Ticker
from ._c_function import NAMELESS, c_function_of

__all__ = ["Stall", "StallMonitor", "max_stall", "watch_as_asked", "watch_stalls"]

THRESHOLD = 0.1
# A loop that calls a C function is usually seen inside the call. So check this many times more, at this interval in
# seconds, whether the thread is elsewhere in between.
CLOSE_LOOKS = 40
CLOSE_LOOK_AFTER = 0.001


class Stall(NamedTuple):
    """Snapshot of a carrier that has not switched for longer than the threshold.

    Attributes:
        carrier: name of its root.
        thread: name of the running virtual thread.
        seconds: time since the last switch.
        stack: stack of the thread, without frames of the runtime. Of a thread that was given a C function, the places
            where it was spawned.
        function: the C function that runs, for example "time.sleep"; "….sleep", or "…", if it belongs to an unnamed
            object. None if Python code runs.
        ready, parked: numbers of virtual threads of the carrier that were ready, and that were parked.
        loop: whether only the event loop of the carrier stood still, in a blocking call of a coroutine or callback.
    """

    carrier: str
    thread: str
    seconds: float
    stack: traceback.StackSummary
    function: str | None
    ready: int
    parked: int
    loop: bool = False

    def __str__(self) -> str:
        if self.loop:
            return (
                f"the event loop of carrier {self.carrier!r} has stood still for {self.seconds:.3f} s: a coroutine or "
                f"callback waits in {self.stack[-1].name}, while the virtual threads go on; await "
                "vthreads.aio.to_vthread(), which makes the call on a virtual thread\n"
                + "".join(self.stack.format()).rstrip()
            )
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

    __slots__ = ("is_reported", "moves", "place", "since", "switches")

    def __init__(self, switches: int, since: float) -> None:
        self.switches = switches
        self.since = since
        self.is_reported = False
        # The position at the last check, and whether it changes between checks: then the thread runs Python code.
        self.place: tuple[Any, int] | None = None
        self.moves = False


class StallMonitor:
    """Checks for stalls. As a context manager, it stops at the end of the block.

    Args:
        threshold: seconds.
        report: called with a `Stall`, on a private OS thread; must not block.
        now: returns the time in seconds.
        once_a_place: report a place once, not each stall at it.
    """

    def __init__(
        self,
        threshold: float,
        report: Callable[[Stall], object],
        now: Callable[[], float] = time.monotonic,
        *,
        once_a_place: bool = True,
    ) -> None:
        self.threshold: float = checked_period(threshold, "threshold")
        self._report = report
        self._now = now
        self._began_at = now()
        self._runs: dict[Scheduler, _Run] = {}
        # When each blocked loop was first seen in its present wait, which its beginning on the clock identifies.
        self._waits: dict[Scheduler, tuple[float, float]] = {}
        self._once_a_place = once_a_place
        self._places: set[tuple[str, int | None]] = set()
        self._ticker = Ticker(self.threshold / 4, self.look)

    def __enter__(self) -> StallMonitor:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start checking. Not a checkpoint; thread-safe."""
        self._ticker.start()

    def stop(self) -> None:
        """Stop checking. Not a checkpoint; thread-safe."""
        self._ticker.stop()

    def look(self) -> None:
        """Check every carrier once. Not a checkpoint."""
        now = self._now()
        runs = {}
        for scheduler in list(carriers.values()):
            run = self._run_of(scheduler, now)
            if run is not None:
                runs[scheduler] = run
                if now - run.since >= self.threshold / 2:
                    self._check_run(scheduler, run, now)
        self._check_loops(now)
        self._runs = runs

    def _run_of(self, scheduler: Scheduler, now: float) -> _Run | None:
        """Return the current run of `scheduler`; None if it polls, or switches during the check."""
        before = scheduler.switches
        began = scheduler.switched_at
        if scheduler.running is None or scheduler.switches != before:
            return None
        run = self._runs.get(scheduler)
        if run is None or run.switches != before:
            # The monitor may have begun after the run. A test may give it a clock that is behind real time.
            run = _Run(before, min(max(began, self._began_at), now))
        return run

    def _check_run(self, scheduler: Scheduler, run: _Run, now: float) -> None:
        innermost = frames_of_os_threads().get(scheduler.ident)
        if _starts(innermost):
            # The carrier starts and patches the standard library. No thread waits for it yet, so this is not a stall.
            run.since = now
            return
        # Without a frame outside the runtime, the thread has been given a C function: the innermost frame calls it.
        frame = first_frame_outside(innermost) or innermost
        thread = scheduler.running
        if frame is None or thread is None or scheduler.switches != run.switches:
            return
        place = frame.f_code, frame.f_lasti
        run.moves |= run.place is not None and run.place != place
        run.place = place
        if now - run.since < self.threshold or run.is_reported:
            return
        run.is_reported = True
        stall = self._stall(scheduler, thread, frame, run, now)
        self._report_stall(stall)

    def _check_loops(self, now: float) -> None:
        """Check whether code of a loop waits, while the other virtual threads of its carrier go on."""
        waits = {}
        for scheduler, guest in list(guests.items()):
            wait = guest.blocked_since
            if wait is None:
                continue
            before = self._waits.get(scheduler)
            since = before[1] if before is not None and before[0] == wait else now
            waits[scheduler] = wait, since
            if now - since >= self.threshold:
                self._report_loop(scheduler, guest, now - since)
        self._waits = waits

    def _report_loop(self, scheduler: Scheduler, guest: Guest, seconds: float) -> None:
        stack = guest.thread.stack()
        if guest.blocked_since is None or not stack:
            # The loop went on meanwhile, so it is not blocked any more.
            return
        parked = sum(thread.state is State.PARKED for thread in threads_on(scheduler))
        root, thread, ready = scheduler.root.name, guest.thread.name, len(scheduler._ready)
        self._report_stall(Stall(root, thread, seconds, stack, None, ready, parked, loop=True))

    def _report_stall(self, stall: Stall) -> None:
        where = stall.stack[-1].filename, stall.stack[-1].lineno
        if not self._once_a_place:
            self._report(stall)
        elif where not in self._places:
            self._places.add(where)
            self._report(stall)

    def _stall(self, scheduler: Scheduler, thread: Any, frame: FrameType, run: _Run, now: float) -> Stall:
        # Read both before the close look, which takes time and lets the frame move on.
        stack, function = _stack_of(thread, frame), None if run.moves else c_function_of(frame)
        if function is not None and self._is_in_loop(scheduler, run):
            function = None
        return Stall(
            carrier=scheduler.root.name,
            thread=thread.name,
            seconds=now - run.since,
            stack=stack,
            function=function,
            ready=len(scheduler._ready),
            parked=sum(thread.state is State.PARKED for thread in threads_on(scheduler)),
        )

    def _is_in_loop(self, scheduler: Scheduler, run: _Run) -> bool:
        """Return whether the thread leaves its place and comes back. After a call that has ended it only leaves."""
        was_elsewhere = False
        for _ in range(CLOSE_LOOKS):
            sleep(CLOSE_LOOK_AFTER)
            innermost = frames_of_os_threads().get(scheduler.ident)
            frame = first_frame_outside(innermost) or innermost
            if frame is None or scheduler.switches != run.switches:
                return False
            is_there = run.place == (frame.f_code, frame.f_lasti)
            if is_there and was_elsewhere:
                return True
            was_elsewhere |= not is_there
        return False


def _starts(frame: FrameType | None) -> bool:
    """Return whether the runtime is starting there."""
    while frame is not None and frame.f_code is not Carrier.start.__code__:
        frame = frame.f_back
    return frame is not None


def _stack_of(thread: Any, innermost: FrameType) -> traceback.StackSummary:
    """Return the stack of `thread` without frames of the runtime, or the places where it was spawned if there are none.

    The carrier of a fleet or of a server may run a thread without either; then the frames of the runtime are returned.
    """
    frame = first_frame_outside(innermost)
    if frame is None and thread._sites:
        return traceback.StackSummary.from_list([site.summary for site in reversed(thread._sites)])
    if frame is None:
        return traceback.StackSummary.extract(traceback.walk_stack(innermost), lookup_lines=False)
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
        # stderr is closed or broken, so the report cannot be written anywhere.
        pass


def watch_stalls(threshold: float = THRESHOLD, report: Callable[[Stall], object] = _print) -> StallMonitor:
    """Report every place where a carrier does not switch for longer than `threshold`. Not a checkpoint; thread-safe.

    Each place is reported once, with the stack that blocks, the C function if there is one, and how many virtual
    threads were ready and parked meanwhile. All carriers are checked, including those that start later.
    `VTHREADS_STALLS=0.1` in the environment and `python -m vthreads run --debug` do the same for a whole program.

    Args:
        threshold: seconds.
        report: called with a `Stall` on a private OS thread, where it must not block. By default it is written to
            stderr.

    Returns:
        The monitor: a context manager, with `stop()`.

    Raises:
        ValueError: `threshold` is not above 0.
    """
    monitor = StallMonitor(threshold, report)
    monitor.start()
    return monitor


class max_stall(AbstractContextManager["max_stall"]):  # noqa: N801  used like a function: `with max_stall(0.1):`
    """Fail if a carrier does not switch for longer than `seconds` inside the `with` block. Not a checkpoint.

    It measures real time, whatever clock the runtime has, so choose a limit that allows for a busy machine.

    Args:
        seconds: the longest allowed stall.

    Raises:
        AssertionError: at the end of the block, with the places. If the block itself raises, its error gets a note.
    """

    def __init__(self, seconds: float) -> None:
        self.stalls: list[Stall] = []
        self._monitor = StallMonitor(seconds, self.stalls.append)

    def __enter__(self) -> max_stall:
        self._monitor.start()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._monitor.stop()
        # Check once more: a stall that held the GIL until now was not noticed.
        self._monitor.look()
        if not self.stalls:
            return
        listing = "\n".join(map(str, self.stalls))
        if error is None:
            raise AssertionError(f"longer than {self._monitor.threshold} s: {listing}")
        add_note(error, "longer than ", f"{self._monitor.threshold} s: {listing}")


def watch_as_asked(wanted: str) -> None:
    """Start the monitor that the environment variable `VTHREADS_STALLS` asks for, once."""
    global _watched
    if _watched is None:
        try:
            _watched = watch_stalls(float(wanted))
        except ValueError:
            raise ValueError(
                f"VTHREADS_STALLS={wanted!r}: set it to a number of seconds > 0, for example 0.1"
            ) from None


_watched: StallMonitor | None = None
