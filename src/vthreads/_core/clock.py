"""Clocks of the scheduler.

A clock defines `now()`, `patience(due, outside)` and `jump(due)`. `patience` returns how many real seconds the
scheduler may wait for outside events when every thread is parked and the next timer is due at `due`. `jump` is called
when that wait has ended without an event. This module does not depend on threads.
"""

from __future__ import annotations

import time
from math import inf
from typing import Protocol

__all__ = ["Clock", "MonotonicClock", "VirtualClock"]

# Midnight UTC of 2000-01-01, as in Go's `testing/synctest`: the same in every run of a test.
DEFAULT_EPOCH = 946_684_800.0


class Clock(Protocol):
    """The methods that the scheduler calls. All times are seconds."""

    def now(self) -> float: ...

    def patience(self, due: float, outside: bool) -> float | None: ...

    def jump(self, due: float) -> None: ...


class MonotonicClock:
    """Real time: `time.monotonic`."""

    now = staticmethod(time.monotonic)

    def patience(self, due: float, outside: bool) -> float | None:
        return None if due == inf else max(0.0, due - time.monotonic())

    def jump(self, due: float) -> None:
        """Do nothing: real time passes without help."""


class VirtualClock:
    """Time that stands still while anything runs and jumps to the next timer when every thread is parked.

    The idea is Trio's `MockClock(autojump_threshold)` and Go's `testing/synctest`.

    Args:
        start: the first value of `now()`, in seconds.
        outside_patience: real seconds to wait for sockets and OS threads, if any thread waits for one, before a jump.
        patch_time: make `time.monotonic`, `time.time` and similar functions return this time, on the carrier that has
            this clock, while it runs. Other OS threads keep the real time. See `vthreads.testing._standard_time`.
        epoch: value of `time.time()` when `now()` is 0, in seconds since 1970; midnight UTC of 2000-01-01.
    """

    def __init__(
        self,
        start: float = 0.0,
        outside_patience: float = 0.05,
        *,
        patch_time: bool = False,
        epoch: float = DEFAULT_EPOCH,
    ) -> None:
        self._now = start
        self._outside_patience = outside_patience
        self.patch_time = patch_time
        self.epoch = epoch

    def now(self) -> float:
        """Return the virtual time in seconds. Not a checkpoint; thread-safe."""
        return self._now

    def patience(self, due: float, outside: bool) -> float | None:
        if due == inf:
            return None
        return self._outside_patience if outside and due > self._now else 0.0

    def jump(self, due: float) -> None:
        self._now = max(self._now, due)

    def advance(self, seconds: float) -> None:
        """Advance the time by `seconds`; timers that become due run at the next checkpoint."""
        self._now += seconds
