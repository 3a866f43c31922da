"""What `select.select`, `select.poll`, `select.epoll` and `select.kqueue` become.

The originals are asked without waiting; if they have nothing, the virtual thread parks until one of the descriptors is
ready and asks again. On a plain OS thread the original waits itself.
"""

from __future__ import annotations

import select as _select
from collections.abc import Iterable
from errno import EBADF, EPERM
from math import inf
from typing import Any

from .._core.current import running
from .._core.engine import READ, WRITE
from .._core.thread import VirtualThread
from ..pauses import Pauses
from .readiness import park_for_fd, park_for_fds

__all__ = ["Epoll", "Kqueue", "poll", "select"]

original_select: Any = _select.select
original_poll: Any = getattr(_select, "poll", None)
original_epoll: Any = getattr(_select, "epoll", None)
original_kqueue: Any = getattr(_select, "kqueue", None)

# The most milliseconds that poll(2) takes.
INT_MAX = 2**31 - 1
# The numbers of poll(2), which epoll shares.
POLLIN, POLLPRI, POLLOUT = 1, 2, 4
# Seconds, at most, between two looks where readiness does not tell.
LONGEST_PAUSE = 0.05


class _Patience:
    """How long a call may still wait, on the clock of its virtual thread."""

    def __init__(self, thread: VirtualThread, seconds: float | None) -> None:
        self._now = thread.scheduler.clock.now
        self._deadline = inf if seconds is None else self._now() + seconds

    def left(self) -> float | None:
        return None if self._deadline == inf else max(0.0, self._deadline - self._now())


class _Wait:
    """Parks until one of the descriptors, numbers with a mask of poll(2), has something; as often as need be.

    What a poller tells of a descriptor is less exact: that it is urgent data, and no other, is not told, for instance.
    So if the first wake-up was in vain, a set of the kernel's with just these masks is waited for. It tells of hangups
    that nobody asked for; where these are no reason to end, as in `select` for writing, only pauses are left.
    """

    def __init__(self, thread: VirtualThread, masks: dict[int, int], patience: _Patience) -> None:
        self._thread = thread
        self._masks = masks
        self._patience = patience
        self._woken = 0
        self._pauses = Pauses(thread, LONGEST_PAUSE, patience.left())

    def __call__(self) -> bool:
        """Park; false if the time is over. A checkpoint."""
        if self._woken > 2 and (original_epoll is None or not any(mask & POLLIN for mask in self._masks.values())):
            self._pauses.park()
        left = self._patience.left()
        if left == 0:
            return False
        if self._woken == 0 or original_epoll is None:
            woken = park_for_fds(self._thread, self._directions(), left)
        else:
            woken = self._park_exactly(left)
        self._woken += 1
        self._thread.check()
        return woken

    def _directions(self) -> list[tuple[int, int]]:
        wanted = [(fd, READ) for fd, mask in self._masks.items() if mask != POLLOUT]
        return wanted + [(fd, WRITE) for fd, mask in self._masks.items() if mask & POLLOUT]

    def _park_exactly(self, left: float | None) -> bool:
        with original_epoll() as exact:
            for fd, mask in self._masks.items():
                try:
                    exact.register(fd, mask)
                except OSError as error:
                    if error.errno == EBADF:
                        # Closed meanwhile: the original tells.
                        return True
                    if error.errno != EPERM:
                        raise
                    # A regular file is ready at once, or never for what is asked of it.
            return park_for_fd(self._thread, exact.fileno(), READ, left)


def _fd_of(file: Any) -> int:
    return file if isinstance(file, int) else file.fileno()


def select(rlist: Any, wlist: Any, xlist: Any, timeout: float | None = None, /) -> tuple[list[Any], ...]:
    """`select.select`. A checkpoint unless `timeout` is 0."""
    thread = running()
    if thread is None or timeout is not None and timeout <= 0:
        return original_select(rlist, wlist, xlist, timeout)
    thread.check()
    # The original judges what it is given, and is the only one to see it if something is ready.
    files = [_repeatable(rlist), _repeatable(wlist), _repeatable(xlist)]
    patience = _Patience(thread, timeout)
    ready = original_select(*files, 0)
    if any(ready):
        return ready
    fds = [[_fd_of(file) for file in some] for some in files]
    masks: dict[int, int] = {}
    for some, mask in zip(fds, (POLLIN, POLLOUT, POLLPRI), strict=True):
        for fd in some:
            masks[fd] = masks.get(fd, 0) | mask
    wait = _Wait(thread, masks, patience)
    while wait():
        ready = original_select(*fds, 0)
        if any(ready):
            return tuple(map(_files_of, files, fds, ready))
    return [], [], []


def _repeatable(files: Any) -> Any:
    return list(files) if isinstance(files, Iterable) and not isinstance(files, list | tuple) else files


def _files_of(files: list[Any], fds: list[int], ready: list[int]) -> list[Any]:
    return [file for file, fd in zip(files, fds, strict=False) if fd in ready]


def poll() -> Poll:
    """`select.poll`. Not a checkpoint."""
    made = object.__new__(Poll)
    made._poll, made._masks, made._under_way = original_poll(), {}, False
    return made


class Poll:
    """`select.poll`, the object: the original, and a record of what is registered, which that keeps to itself."""

    _poll: Any
    _masks: dict[int, int]
    _under_way: bool

    def __new__(cls) -> Poll:
        raise TypeError("cannot create 'select.poll' instances")

    def register(self, fd: Any, eventmask: int = 7, /) -> None:
        # 7 is the original's default: POLLIN | POLLPRI | POLLOUT.
        self._poll.register(fd, eventmask)
        self._masks[_fd_of(fd)] = eventmask

    def modify(self, fd: Any, eventmask: int, /) -> None:
        self._poll.modify(fd, eventmask)
        self._masks[_fd_of(fd)] = eventmask

    def unregister(self, fd: Any, /) -> None:
        self._poll.unregister(fd)
        self._masks.pop(_fd_of(fd), None)

    def poll(self, timeout: float | None = None, /) -> list[tuple[int, int]]:
        """Wait up to `timeout` milliseconds. A checkpoint unless it is 0."""
        thread = running()
        if thread is None or timeout is not None and (not isinstance(timeout, int | float) or 0 <= timeout < 1):
            return self._poll.poll(timeout)
        thread.check()
        if timeout is not None and timeout > INT_MAX:
            # Refused by the original.
            return self._poll.poll(timeout)
        if self._under_way:
            raise RuntimeError("concurrent poll() invocation")
        # Negative means no limit, as None does.
        patience = _Patience(thread, None if timeout is None or timeout < 0 else timeout / 1000)
        wait = _Wait(thread, self._masks, patience)
        self._under_way = True
        try:
            while True:
                ready: list[tuple[int, int]] = self._poll.poll(0)
                if ready or not wait():
                    return ready
        finally:
            self._under_way = False


# What error messages and pickles call it.
Poll.__module__, Poll.__qualname__, Poll.__name__ = "select", "poll", "poll"


class _KernelQueue:
    """What epoll and kqueue objects share: the kernel holds the registrations, and its descriptor tells readiness."""

    def __init__(self, original: Any) -> None:
        self._queue = original

    @property
    def closed(self) -> bool:
        return self._queue.closed

    def fileno(self) -> int:
        return self._queue.fileno()

    def close(self) -> None:
        self._queue.close()

    def _wait(self, thread: VirtualThread, patience: _Patience) -> bool:
        ready = park_for_fd(thread, self._queue.fileno(), READ, patience.left())
        thread.check()
        return ready


class Epoll(_KernelQueue):
    """`select.epoll`, the object."""

    def __init__(self, sizehint: int = -1, flags: int = 0) -> None:
        super().__init__(original_epoll(sizehint, flags))

    @classmethod
    def fromfd(cls, fd: int, /) -> Epoll:
        wrapped = cls.__new__(cls)
        _KernelQueue.__init__(wrapped, original_epoll.fromfd(fd))
        return wrapped

    def __enter__(self) -> Epoll:
        self._queue.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def register(self, fd: Any, eventmask: int = 7) -> None:
        # 7 is the original's default: EPOLLIN | EPOLLPRI | EPOLLOUT.
        self._queue.register(fd, eventmask)

    def modify(self, fd: Any, eventmask: int) -> None:
        self._queue.modify(fd, eventmask)

    def unregister(self, fd: Any) -> None:
        self._queue.unregister(fd)

    def poll(self, timeout: float | None = None, maxevents: int = -1) -> list[tuple[int, int]]:
        """Wait up to `timeout` seconds. A checkpoint unless it is 0."""
        thread = running()
        if thread is None or timeout == 0:
            return self._queue.poll(timeout, maxevents)
        thread.check()
        patience = _Patience(thread, None if timeout is None or timeout < 0 else timeout)
        while True:
            ready: list[tuple[int, int]] = self._queue.poll(0, maxevents)
            if ready or not self._wait(thread, patience):
                return ready


class Kqueue(_KernelQueue):
    """`select.kqueue`, the object. Not tested on this project's CI."""

    def __init__(self) -> None:
        super().__init__(original_kqueue())

    @classmethod
    def fromfd(cls, fd: int, /) -> Kqueue:
        wrapped = cls.__new__(cls)
        _KernelQueue.__init__(wrapped, original_kqueue.fromfd(fd))
        return wrapped

    def control(self, changelist: Any, max_events: int, timeout: float | None = None, /) -> list[Any]:
        """Change registrations and wait up to `timeout` seconds. A checkpoint unless it is 0 or nothing is wanted."""
        thread = running()
        if thread is None or timeout == 0 or max_events == 0:
            return self._queue.control(changelist, max_events, timeout)
        thread.check()
        patience = _Patience(thread, timeout)
        ready: list[Any] = self._queue.control(changelist, max_events, 0)
        while not ready and self._wait(thread, patience):
            ready = self._queue.control(None, max_events, 0)
        return ready
