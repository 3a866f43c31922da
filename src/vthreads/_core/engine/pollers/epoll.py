"""Linux epoll, edge-triggered: one registration for the life of a descriptor, no system call to wait for it again."""

from __future__ import annotations

from select import EPOLLERR, EPOLLET, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP

from ...originals import epoll
from .wakeup import HANGUP, READ, WRITE, WakeupPipe

__all__ = ["EpollPoller"]

BOTH_EDGES = EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLRDHUP | EPOLLET
READABLE = EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLHUP | EPOLLERR
WRITABLE = EPOLLOUT | EPOLLHUP | EPOLLERR
ENDED = EPOLLRDHUP | EPOLLHUP | EPOLLERR


def _translate(mask: int) -> int:
    events = READ if mask & READABLE else 0
    if mask & WRITABLE:
        events |= WRITE
    if mask & ENDED:
        events |= HANGUP
    return events


class EpollPoller:
    """Meets the contract of the package. `arm` is free: the edge has been asked for once and for all."""

    name = "epoll"

    def __init__(self) -> None:
        self._epoll = epoll()
        self._wakeup = WakeupPipe()
        self.interrupt_fd = self._wakeup.write_fd
        self.interrupt = self._wakeup.interrupt
        # For an engine that polls by itself: by what, what interrupts it, and what is due then.
        self.fileno = self._epoll.fileno
        self.wakeup_fd = self._wakeup.read_fd
        self.drain = self._wakeup.drain
        self._epoll.register(self._wakeup.read_fd, EPOLLIN)

    def register(self, fd: int) -> None:
        try:
            self._epoll.register(fd, BOTH_EDGES)
        except FileExistsError:
            # The same open file under the same number, left by an owner who gave the number away (`detach`).
            self._epoll.modify(fd, BOTH_EDGES)

    def arm(self, fd: int, direction: int) -> None:
        """The registration stands."""

    def rearm(self, fd: int, direction: int) -> None:
        # Modifying reports a readiness that is there already; it fails if the number now means another file.
        try:
            self._epoll.modify(fd, BOTH_EDGES)
        except FileNotFoundError:
            self._epoll.register(fd, BOTH_EDGES)

    def unregister(self, fd: int) -> None:
        try:
            self._epoll.unregister(fd)
        except OSError:
            # Closed already, and by that out of the kernel's set.
            pass

    def wait(self, seconds: float | None) -> list[tuple[int, int]]:
        wakeup_fd = self._wakeup.read_fd
        events = []
        for fd, mask in self._epoll.poll(seconds, 256):
            if fd == wakeup_fd:
                self._wakeup.drain()
            else:
                events.append((fd, _translate(mask)))
        return events

    def close(self) -> None:
        self._epoll.close()
        self._wakeup.close()
