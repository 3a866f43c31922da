"""The pipe through which other OS threads and signals end a poller's wait, and the names of events."""

from __future__ import annotations

import os

from ...originals import Section, close_fd, read_fd, write_fd
from ...repeated import repeated_in

__all__ = ["HANGUP", "READ", "URGENT", "WRITE", "WakeupPipe", "own_fds"]

READ, WRITE, HANGUP, URGENT = 1, 2, 4, 8


# Descriptors of the pollers of this process. They stay open if a program closes all descriptors.
own_fds: set[int] = set()


class WakeupPipe:
    """A pipe whose read end a poller watches.

    A pipe and not an eventfd: `signal.set_wakeup_fd` writes single bytes, which an eventfd refuses.
    """

    def __init__(self) -> None:
        self.read_fd, self.write_fd = os.pipe()
        os.set_blocking(self.read_fd, False)
        os.set_blocking(self.write_fd, False)
        own_fds.update((self.read_fd, self.write_fd))
        # Guards against an interrupt from another OS thread during `close`: the number may be reused at once.
        self._closing = Section()
        self._closed = False
        self._pid = os.getpid()

    @repeated_in("_core/engine/compiled/pollers.pxi")
    def interrupt(self) -> None:
        with self._closing:
            if self._closed:
                return
            try:
                write_fd(self.write_fd, b"\0")
            except BlockingIOError:
                # The pipe is full, so the reader will wake up anyway.
                pass

    @repeated_in("_core/engine/compiled/pollers.pxi")
    def drain(self) -> None:
        try:
            while len(read_fd(self.read_fd, 4096)) == 4096:
                pass
        except BlockingIOError:
            # Another signal handler may have emptied the pipe. The wait then ends without an event, and the scheduler
            # waits again.
            pass

    def close(self) -> None:
        if os.getpid() != self._pid:
            # In the child of a fork, the thread that held the lock may not exist.
            self._closing = Section()
        with self._closing:
            if self._closed:
                # `close` was called before: the end of `run` in the child of a fork calls it again, when the numbers
                # may mean other files.
                return
            self._closed = True
            own_fds.difference_update((self.read_fd, self.write_fd))
            close_fd(self.read_fd)
            close_fd(self.write_fd)
