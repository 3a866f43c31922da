"""POSIX select: available everywhere, but only for descriptors below FD_SETSIZE (usually 1,024)."""

from __future__ import annotations

import os

from ...originals import select
from .interest import InterestPoller
from .wakeup import HANGUP, READ, URGENT, WRITE

__all__ = ["SelectPoller"]


class SelectPoller(InterestPoller):
    """Implements the contract of the package."""

    name = "select"

    def register(self, fd: int) -> None:
        super().register(fd)
        # Raise here, for the caller that passes the descriptor, and not later inside a wait for all descriptors.
        select([fd], [], [], 0)

    def wait(self, seconds: float | None) -> list[tuple[int, int]]:
        wakeup_fd = self._wakeup.read_fd
        readers = [fd for fd, direction in self._armed.items() if direction & READ]
        writers = [fd for fd, direction in self._armed.items() if direction & WRITE]
        try:
            readable, writable, failed = select([wakeup_fd, *readers], writers, readers, seconds)
        except OSError as error:
            return self._closed_ones(error)
        ready: dict[int, int] = {}
        for fd in readable:
            ready[fd] = READ
        for fd in failed:
            ready[fd] = READ | URGENT
        for fd in writable:
            ready[fd] = ready.get(fd, 0) | WRITE
        if ready.pop(wakeup_fd, 0):
            self._wakeup.drain()
        return [self._reported(fd, events) for fd, events in ready.items()]

    def _closed_ones(self, error: OSError) -> list[tuple[int, int]]:
        """Report closed descriptors, each of which fails the whole call, so that their waiters detect it."""
        closed = []
        for fd in list(self._armed):
            try:
                os.fstat(fd)
            except OSError:
                closed.append(self._reported(fd, READ | WRITE | HANGUP))
        if not closed:
            raise error
        return closed
