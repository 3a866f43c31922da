"""Common part of poll and select, which are level-triggered: query only directions that are waited for, once each."""

from __future__ import annotations

import os
import stat

from .wakeup import WakeupPipe

__all__ = ["InterestPoller"]


class InterestPoller:
    """Stores the armed directions of each descriptor; reporting a direction disarms it."""

    def __init__(self) -> None:
        self._armed: dict[int, int] = {}
        self._wakeup = WakeupPipe()
        self.interrupt_fd = self._wakeup.write_fd
        self.interrupt = self._wakeup.interrupt

    def register(self, fd: int) -> None:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            raise PermissionError(f"descriptor {fd} is a regular file, which is always ready")

    def arm(self, fd: int, direction: int) -> None:
        self._armed[fd] = self._armed.get(fd, 0) | direction

    rearm = arm

    def unregister(self, fd: int) -> None:
        self._armed.pop(fd, None)

    def _reported(self, fd: int, events: int) -> tuple[int, int]:
        left = self._armed.get(fd, 0) & ~events
        if left:
            self._armed[fd] = left
        else:
            self._armed.pop(fd, None)
        return fd, events

    def close(self) -> None:
        self._wakeup.close()
