"""POSIX poll: no limit on descriptor numbers; its cost grows with the number of waits."""

from __future__ import annotations

import math
from select import POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT, POLLPRI

from ...originals import poll
from .interest import InterestPoller
from .wakeup import HANGUP, READ, URGENT, WRITE

__all__ = ["PollPoller"]

ENDED = POLLHUP | POLLERR | POLLNVAL


class PollPoller(InterestPoller):
    """Implements the contract of the package."""

    name = "poll"

    def wait(self, seconds: float | None) -> list[tuple[int, int]]:
        interests = poll()
        wakeup_fd = self._wakeup.read_fd
        interests.register(wakeup_fd, POLLIN)
        for fd, direction in self._armed.items():
            reading = POLLIN | POLLPRI if direction & READ else 0
            interests.register(fd, reading | (POLLOUT if direction & WRITE else 0))
        # Round up: waking up before a timer is due would spin for the last millisecond.
        milliseconds = None if seconds is None else math.ceil(seconds * 1000)
        events = []
        for fd, mask in interests.poll(milliseconds):
            if fd == wakeup_fd:
                self._wakeup.drain()
                continue
            ended = mask & ENDED
            ready = (READ if mask & (POLLIN | POLLPRI) or ended else 0) | (WRITE if mask & POLLOUT or ended else 0)
            ready |= (HANGUP if ended else 0) | (URGENT if mask & POLLPRI else 0)
            events.append(self._reported(fd, ready))
        return events
