"""The standard library's clocks on virtual time: `run(clock=VirtualClock(patch_time=True))`.

Active from the start of such a runtime to its end, by the method of `vthreads.patch`: references taken before are
replaced, and each replacement looks up the clock of the calling OS thread. Carriers with another clock and plain OS
threads keep the real time.

Not replaced: `datetime.now()` and `utcnow()`, which read the system's clock in C; `process_time` and `thread_time`,
which measure work; time stamps of files; and clocks that C code reads itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from math import inf, nextafter
from typing import Any

from .._core.clock import VirtualClock
from .._core.current import carriers
from .._core.engine import Scheduler
from .._core.originals import get_ident
from .._core.participants import Participant, participate
from .._patching.references import Undo, replace_references
from .._patching.stand_in import stand_in

__all__ = ["put_in_place", "take_back"]

original = {name: value for name, value in vars(time).items() if callable(value)}

# Clocks of `clock_gettime` by their meaning. Clocks that measure work, and unknown ones, stay real.
SINCE_START = {
    getattr(time, f"CLOCK_{name}", None) for name in ("MONOTONIC", "MONOTONIC_RAW", "BOOTTIME", "UPTIME_RAW")
}
SINCE_1970 = {getattr(time, f"CLOCK_{name}", None) for name in ("REALTIME", "TAI")}
NANOSECONDS = 1_000_000_000


def _clock_here() -> VirtualClock | None:
    scheduler = carriers.get(get_ident())
    clock = None if scheduler is None else scheduler.clock
    return clock if isinstance(clock, VirtualClock) and clock.patch_time else None


# Some loops of the standard library go on until their deadline is over, and wait for the time that remains until then:
# 0 seconds at the deadline itself. A clock that stands still would keep them there. So it runs on by the least amount.


def _seconds(clock: VirtualClock, origin: float = 0.0) -> float:
    seconds = origin + clock.now()
    return nextafter(seconds, inf) if clock.is_read_in_a_loop() else seconds


def _units(clock: VirtualClock, unit: int, origin: float = 0.0) -> int:
    return round(origin * unit) + round(clock.now() * unit) + clock.is_read_in_a_loop()


def _since_start(name: str, unit: int | None = None) -> Callable[[], Any]:
    """Return a function for a clock that returns `now()`, in seconds or as a whole number of `unit`ths of a second."""

    def replacement() -> Any:
        clock = _clock_here()
        if clock is None:
            return original[name]()
        return _seconds(clock) if unit is None else _units(clock, unit)

    return replacement


def wall_time() -> float:
    clock = _clock_here()
    if clock is None:
        return original["time"]()  # type: ignore[no-any-return]  # a float
    return _seconds(clock, clock.epoch)


def wall_time_ns() -> int:
    clock = _clock_here()
    if clock is None:
        return original["time_ns"]()  # type: ignore[no-any-return]  # an int
    return _units(clock, NANOSECONDS, clock.epoch)


def clock_gettime(clk_id: int, /) -> Any:
    clock = _clock_here()
    if clock is not None and clk_id in SINCE_START:
        return _seconds(clock)
    if clock is not None and clk_id in SINCE_1970:
        return wall_time()
    return original["clock_gettime"](clk_id)


def clock_gettime_ns(clk_id: int, /) -> Any:
    clock = _clock_here()
    if clock is not None and clk_id in SINCE_START:
        return _units(clock, NANOSECONDS)
    if clock is not None and clk_id in SINCE_1970:
        return wall_time_ns()
    return original["clock_gettime_ns"](clk_id)


def _from_seconds(name: str) -> Callable[..., Any]:
    """Return a function of seconds since 1970 whose default is the current time."""

    def convert(seconds: float | None = None, /) -> Any:
        return original[name](wall_time() if seconds is None else seconds)

    return convert


def asctime(*moment: Any) -> Any:
    return original["asctime"](*(moment or (original["localtime"](wall_time()),)))


def strftime(form: str, *moment: Any) -> Any:
    return original["strftime"](form, *(moment or (original["localtime"](wall_time()),)))


REPLACEMENTS: dict[str, Callable[..., Any]] = {
    "monotonic": _since_start("monotonic"),
    "monotonic_ns": _since_start("monotonic_ns", NANOSECONDS),
    "perf_counter": _since_start("perf_counter"),
    "perf_counter_ns": _since_start("perf_counter_ns", NANOSECONDS),
    "time": wall_time,
    "time_ns": wall_time_ns,
    "clock_gettime": clock_gettime,
    "clock_gettime_ns": clock_gettime_ns,
    "localtime": _from_seconds("localtime"),
    "gmtime": _from_seconds("gmtime"),
    "ctime": _from_seconds("ctime"),
    "asctime": asctime,
    "strftime": strftime,
}


class _Users:
    """Number of users of the virtual clocks, and the functions that undo the replacement."""

    def __init__(self) -> None:
        self.users = 0
        self.undo: list[Undo] = []


_in_force = _Users()


def _wants_it(scheduler: Scheduler) -> bool:
    return isinstance(scheduler.clock, VirtualClock) and scheduler.clock.patch_time


def put_in_place() -> None:
    """Replace the clocks of the standard library until `take_back` was called as often."""
    _in_force.users += 1
    if _in_force.users == 1:
        there = {name: new for name, new in REPLACEMENTS.items() if name in original}
        _in_force.undo = replace_references(
            [(original[name], stand_in(original[name], new)) for name, new in there.items()]
        )


def take_back() -> None:
    """Undo one `put_in_place`."""
    _in_force.users -= 1
    if _in_force.users == 0:
        while _in_force.undo:
            _in_force.undo.pop()()


def _started(scheduler: Scheduler, _: bool) -> None:
    if _wants_it(scheduler):
        put_in_place()


def _stopping(scheduler: Scheduler) -> None:
    if _wants_it(scheduler):
        take_back()


participate(__name__, Participant(started=_started, stopping=_stopping))
