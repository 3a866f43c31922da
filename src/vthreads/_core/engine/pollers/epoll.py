"""Linux epoll, edge-triggered: a descriptor is registered once, and further waits need no system call."""

from __future__ import annotations

from select import EPOLLERR, EPOLLET, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP

from ...originals import epoll
from ...repeated import repeated_in
from .wakeup import HANGUP, READ, URGENT, WRITE, WakeupPipe, own_fds

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
    if mask & EPOLLPRI:
        events |= URGENT
    return events


class EpollPoller:
    """Implements the contract of the package. `arm` does nothing: the registration reports each edge until its end."""

    name = "epoll"

    def __init__(self) -> None:
        self._epoll = epoll()
        own_fds.add(self._epoll.fileno())
        self._wakeup = WakeupPipe()
        self.interrupt_fd = self._wakeup.write_fd
        self.interrupt = self._wakeup.interrupt
        # For an engine that polls without this class: the epoll descriptor and the wakeup descriptor.
        self.fileno = self._epoll.fileno
        self.wakeup_fd = self._wakeup.read_fd
        self._epoll.register(self._wakeup.read_fd, EPOLLIN)

    def register(self, fd: int) -> None:
        try:
            self._epoll.register(fd, BOTH_EDGES)
        except FileExistsError:
            # The same open file is registered under this number: its previous owner gave the number away (`detach`).
            self._epoll.modify(fd, BOTH_EDGES)

    def arm(self, fd: int, direction: int) -> None:
        """Do nothing: the registration is still valid."""

    def rearm(self, fd: int, direction: int) -> None:
        # `modify` reports readiness that exists already, so an edge that was missed before is reported again. It fails
        # if the number now means another file: epoll removes a file only when its last descriptor (dup, fork) is
        # closed, and a reused number is not registered. Then register the new file.
        try:
            self._epoll.modify(fd, BOTH_EDGES)
        except FileNotFoundError:
            self._epoll.register(fd, BOTH_EDGES)

    def unregister(self, fd: int) -> None:
        try:
            self._epoll.unregister(fd)
        except OSError:
            # Closed already, which has removed it from the kernel's set.
            pass

    @repeated_in("_core/engine/compiled/pollers.pxi")
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
        if not self._epoll.closed:
            own_fds.discard(self._epoll.fileno())
            self._epoll.close()
        self._wakeup.close()
