"""Clocks of the scheduler.

A clock defines `now()`, `patience(due, outside)` and `jump(due)`. `patience` returns how many real seconds the
scheduler may wait for outside events when every thread is parked and the next timer is due at `due`. `jump` is called
when that wait has ended without an event. A clock that does not jump then is asked for its patience again. This module
does not depend on virtual threads.
"""

from __future__ import annotations

from math import inf
from time import monotonic as real_time
from typing import Protocol

from .arguments import checked_span
from .os_thread_states import busy_os_threads

__all__ = ["Clock", "MonotonicClock", "VirtualClock"]

# Midnight UTC of 2000-01-01, as in Go's `testing/synctest`: the same in every run of a test.
DEFAULT_EPOCH = 946_684_800.0

# Seconds of real time to wait for OS threads that run; limits the wait for one that never waits.
BUSY_PATIENCE = 5.0

# The same time may be read so often before it seems to be read in a loop that waits for a later one.
PATIENT_READS = 200


class Clock(Protocol):
    """The methods that the scheduler calls. All times are seconds."""

    def now(self) -> float:
        """Return the time."""

    def patience(self, due: float, outside: bool) -> float | None:
        """Return how long the scheduler may wait for events from outside before it calls `jump`; None: no limit.

        Args:
            due: the time of the next timer; `inf` if there is none.
            outside: whether an event from outside can come, such as a ready descriptor or the end of an offload.
        """

    def jump(self, due: float) -> None:
        """Move the time to `due`, if this clock does not pass by itself: all threads are parked."""


class MonotonicClock:
    """Real time: `time.monotonic`."""

    now = staticmethod(real_time)

    def patience(self, due: float, outside: bool) -> float | None:
        return None if due == inf else max(0.0, due - real_time())

    def jump(self, due: float) -> None:
        """Do nothing: real time passes without help."""


class VirtualClock:
    """Time that stands still while anything runs and jumps to the next timer when every thread is parked.

    The idea is Trio's `MockClock(autojump_threshold)` and Go's `testing/synctest`.

    Args:
        start: the first value of `now()`, in seconds.
        outside_patience: real seconds to wait for sockets and OS threads, if any thread waits for one, before a jump.
            On Linux it goes on, up to 5 seconds, while another OS thread of this process runs or is about to run.
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
        self._now = start = checked_span(start, "start", -inf)
        self._outside_patience = checked_span(outside_patience, "outside_patience")
        self._waits_outside = False
        self._jumps_at_latest = inf  # in real time; finite while it declines to jump
        self._read_at, self._reads = start, 0
        self.patch_time = patch_time
        self.epoch: float = checked_span(epoch, "epoch", -inf)

    def now(self) -> float:
        """Return the virtual time in seconds. Not a checkpoint; thread-safe."""
        return self._now

    def is_read_in_a_loop(self) -> bool:
        """Return whether a patched clock has read this time so often that the caller seems to wait for a later one."""
        if self._read_at != self._now:
            self._read_at, self._reads = self._now, 0
        self._reads += 1
        return self._reads > PATIENT_READS

    def patience(self, due: float, outside: bool) -> float | None:
        if due == inf:
            return None
        self._waits_outside = outside and due > self._now
        return self._outside_patience if self._waits_outside else 0.0

    def jump(self, due: float) -> None:
        """Move the time to `due`, unless an OS thread still runs. For the scheduler; a program calls `advance`."""
        # On a busy machine an OS thread may wait for a processor, while a timeout in virtual time takes no real time:
        # the timeout would expire before that thread could do its work. So decline to jump for a while.
        if self._waits_outside and any(True for _ in busy_os_threads()):
            self._jumps_at_latest = min(self._jumps_at_latest, real_time() + BUSY_PATIENCE)
            if real_time() < self._jumps_at_latest:
                return
        self._jumps_at_latest = inf
        self._now = max(self._now, due)

    def advance(self, seconds: float) -> None:
        """Advance the time by `seconds`; timers that become due run at the next checkpoint."""
        self._now += checked_span(seconds, "seconds")
