"""The pipe by which other OS threads and signals end a poller's wait, and the words all pollers share."""

from __future__ import annotations

import os

from ...originals import RLock, close_fd, read_fd, write_fd

__all__ = ["HANGUP", "READ", "WRITE", "WakeupPipe"]

READ, WRITE, HANGUP = 1, 2, 4


class WakeupPipe:
    """A pipe whose read end a poller watches.

    A pipe and no eventfd: `signal.set_wakeup_fd` writes single bytes, which an eventfd refuses.
    """

    def __init__(self) -> None:
        self.read_fd, self.write_fd = os.pipe()
        os.set_blocking(self.read_fd, False)
        os.set_blocking(self.write_fd, False)
        # Another OS thread may be about to interrupt while this one closes, and the number may be given out again.
        self._closing = RLock()
        self._closed = False
        self._pid = os.getpid()

    def interrupt(self) -> None:
        with self._closing:
            if self._closed:
                return
            try:
                write_fd(self.write_fd, b"\0")
            except BlockingIOError:
                # Full: the reader has not looked yet and will find what is there.
                pass

    def drain(self) -> None:
        try:
            while len(read_fd(self.read_fd, 4096)) == 4096:
                pass
        except BlockingIOError:
            # Somebody else's signal handler may have emptied it; being woken for nothing is harmless.
            pass

    def close(self) -> None:
        if os.getpid() != self._pid:
            # In the child of a fork, whoever held the lock is not there to give it back.
            self._closing = RLock()
        with self._closing:
            if self._closed:
                # Once more, where `run` ends in the child of a fork: the numbers may mean other files by now.
                return
            self._closed = True
            close_fd(self.read_fd)
            close_fd(self.write_fd)
