"""A stall monitor whose clock the test sets."""

from __future__ import annotations

from vthreads import debug


class Watch:
    """The monitor and its reports."""

    def __init__(self, threshold=1.0):
        self.time = 0.0
        self.stalls = []
        self.monitor = debug.StallMonitor(threshold, self.stalls.append, lambda: self.time)

    def look_after(self, seconds):
        self.time += seconds
        self.monitor.look()
