"""Replacements for `select.select`, `select.poll`, `select.epoll` and `select.kqueue`.

Each calls the original with timeout 0. If nothing is ready, the virtual thread parks until one of the descriptors is
ready, and calls the original again. On a plain OS thread it only calls the original, which waits. A call with timeout 0
is not a checkpoint, but yields after a long run: an event loop that is never idle makes no other blocking call.
"""

from __future__ import annotations

import os
import select as _select
import sys
from _thread import TIMEOUT_MAX
from collections.abc import Iterable, Mapping
from errno import EBADF, EPERM
from math import inf
from typing import Any

from ..._core.arguments import standard_time
from ..._core.current import give_way, running
from ..._core.engine import READ, WRITE, compiled, supply
from ..._core.thread import VirtualThread
from ..inside_scheduler import wait_outside_scheduler
from ..pauses import Pauses
from .readiness import NO_OWNERS, park_for_fd, park_for_fds

__all__ = ["Epoll", "Kqueue", "poll", "poll_over", "select"]

original_select: Any = _select.select
original_poll: Any = getattr(_select, "poll", None)
original_epoll: Any = getattr(_select, "epoll", None)
original_kqueue: Any = getattr(_select, "kqueue", None)

# The largest timeout of `poll`, in milliseconds: that of poll(2), which since Python 3.15 is called again and again.
LONGEST_POLL = TIMEOUT_MAX * 1000 if sys.version_info >= (3, 15) else 2**31 - 1
# The event bits of poll(2), which epoll uses too.
POLLIN, POLLPRI, POLLOUT = 1, 2, 4
# Seconds, at most, between two attempts where no readiness event reports the change.
LONGEST_PAUSE = 0.05


class _TimeLeft:
    """The remaining time of a call, on the clock of its virtual thread."""

    def __init__(self, thread: VirtualThread, seconds: float | None) -> None:
        self._now = thread._scheduler.clock.now
        self._deadline = inf if seconds is None else self._now() + seconds

    def left(self) -> float | None:
        return None if self._deadline == inf else max(0.0, self._deadline - self._now())


class _Wait:
    """Parks until one of the descriptors, given as numbers with poll(2) masks, may be ready; can be called repeatedly.

    The poller of the runtime reports less exactly than the masks ask: for example, it cannot wait for urgent data
    alone. So the poll may end while none of the masks holds, and a loop on that would spin. After the first
    end of this kind the thread waits for an epoll object that holds exactly these masks. Epoll always reports
    hangups too, even if the masks do not ask for them and the call ignores them (as `select` for writing does). If the
    poll ends for these too, only pauses are left.
    """

    def __init__(
        self,
        thread: VirtualThread,
        masks: dict[int, int] | None,
        time_left: _TimeLeft,
        sockets: Mapping[int, Any] = NO_OWNERS,
    ) -> None:
        self._thread = thread
        self._masks = masks
        self._time_left = time_left
        self._sockets = sockets
        self._woken = 0
        self._pauses: Pauses | None = None

    def _pause(self) -> bool:
        if self._pauses is None:
            self._pauses = Pauses(self._thread, LONGEST_PAUSE, self._time_left.left())
        return self._pauses.park()

    def __call__(self) -> bool:
        """Park; return False if the time has expired. A checkpoint."""
        if self._masks is None:
            # Registrations made before patching are known to the original only, so poll it after pauses.
            return self._pause()
        if self._woken > 2 and (original_epoll is None or not any(mask & POLLIN for mask in self._masks.values())):
            self._pause()
        left = self._time_left.left()
        if left == 0:
            return False
        if self._woken == 0 or original_epoll is None:
            woken = park_for_fds(self._thread, _directions(self._masks), left, self._sockets)
        else:
            woken = self._park_exactly(self._masks, left)
        self._woken += 1
        self._thread._check()
        return woken

    def _park_exactly(self, masks: dict[int, int], left: float | None) -> bool:
        with original_epoll() as exact:
            for fd, mask in masks.items():
                try:
                    exact.register(fd, mask)
                except OSError as error:
                    if error.errno == EBADF:
                        # The descriptor was closed meanwhile: the original raises the error.
                        return True
                    if error.errno != EPERM:
                        raise
                    # A regular file: always ready for what select reports of it, or never. The original decides.
            return park_for_fd(self._thread, exact.fileno(), READ, left)


def _directions(masks: dict[int, int]) -> list[tuple[int, int]]:
    wanted = [(fd, READ) for fd, mask in masks.items() if mask != POLLOUT]
    return wanted + [(fd, WRITE) for fd, mask in masks.items() if mask & POLLOUT]


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _fd_of(file: Any) -> int:
    return file if isinstance(file, int) else file.fileno()


@compiled
def select(rlist: Any, wlist: Any, xlist: Any, timeout: float | None = None, /) -> tuple[list[Any], ...]:
    """`select.select`. A checkpoint unless `timeout` is 0."""
    thread = running()
    seconds = None if timeout is None else standard_time(timeout)
    if seconds is not None and not seconds > 0:
        give_way()
        return original_select(rlist, wlist, xlist, timeout)
    if thread is None:
        files = [_repeatable(rlist), _repeatable(wlist), _repeatable(xlist)]
        return wait_outside_scheduler(lambda: original_select(*files, timeout), lambda: original_select(*files, 0), any)
    thread._check()
    # The original validates the arguments. If something is ready, its result is final.
    files = [_repeatable(rlist), _repeatable(wlist), _repeatable(xlist)]
    time_left = _TimeLeft(thread, seconds)
    ready = original_select(*files, 0)
    if any(ready):
        return ready
    fds, masks, sockets = _numbers_of(files)
    wait = _Wait(thread, masks, time_left, sockets)
    while True:
        try:
            if not wait():
                return [], [], []
            ready = original_select(*fds, 0)
        except OSError as error:
            if error.errno != EBADF:
                raise
            thread._check()
            ready = _ready_or_closed(fds)
        if any(ready):
            return tuple(map(_files_of, files, fds, ready))


def _ready_or_closed(fds: list[list[int]]) -> tuple[list[int], ...]:
    """Return what is ready, and what was closed during the wait: for Linux, too, that is ready when it looks again."""
    is_open = {fd: _is_open(fd) for some in fds for fd in some}
    ready: tuple[list[int], ...] = original_select(*([fd for fd in some if is_open[fd]] for some in fds), 0)
    return tuple(found + [fd for fd in some if not is_open[fd]] for found, some in zip(ready, fds, strict=True))


def _numbers_of(files: list[Any]) -> tuple[list[list[int]], dict[int, int], dict[int, Any]]:
    """Return the numbers of three lists of files, a poll(2) mask for each number, and the sockets by number."""
    socket = _socket_class()
    fds: list[list[int]] = []
    masks: dict[int, int] = {}
    sockets: dict[int, Any] = {}
    for some, mask in zip(files, (POLLIN, POLLOUT, POLLPRI), strict=True):
        numbers = []
        for file in some:
            fd = _fd_of(file)
            numbers.append(fd)
            masks[fd] = masks.get(fd, 0) | mask
            if type(file) is socket:
                sockets[fd] = file
        fds.append(numbers)
    return fds, masks, sockets


def _socket_class() -> Any:
    """Return the class whose calls park; None if the module is not imported, so that no such sockets exist."""
    return getattr(sys.modules.get("socket"), "socket", None)


supply(__name__, socket_class=_socket_class)


def _repeatable(files: Any) -> Any:
    # The first check is the common case, and costs less than that for any iterable.
    return files if isinstance(files, list | tuple) or not isinstance(files, Iterable) else list(files)


def _files_of(files: list[Any], fds: list[int], ready: list[int]) -> list[Any]:
    return [file for file, fd in zip(files, fds, strict=False) if fd in ready] if ready else []


def poll() -> Poll:
    """`select.poll`. Not a checkpoint."""
    made = poll_over(original_poll())
    made._masks = {}
    return made


def poll_over(original: Any) -> Poll:
    """Return a `select.poll` object that replaces `original` and keeps its registrations. Not a checkpoint."""
    made = object.__new__(Poll)
    made._poll, made._masks, made._under_way = original, None, False
    return made


class Poll:
    """Replacement for the `select.poll` object: the original, and a record of its registrations.

    The original does not reveal its registrations, and parking needs the descriptors. If an object was created before
    patching, there is no record, and waiting means calling the original again after pauses.
    """

    _poll: Any
    _masks: dict[int, int] | None
    _under_way: bool

    def __new__(cls) -> Poll:
        raise TypeError("cannot create 'select.poll' instances")

    def register(self, fd: Any, eventmask: int = 7, /) -> None:
        # 7 is the original's default: POLLIN | POLLPRI | POLLOUT.
        self._poll.register(fd, eventmask)
        if self._masks is not None:
            self._masks[_fd_of(fd)] = eventmask

    def modify(self, fd: Any, eventmask: int, /) -> None:
        self._poll.modify(fd, eventmask)
        if self._masks is not None:
            self._masks[_fd_of(fd)] = eventmask

    def unregister(self, fd: Any, /) -> None:
        self._poll.unregister(fd)
        if self._masks is not None:
            self._masks.pop(_fd_of(fd), None)

    def poll(self, timeout: float | None = None, /) -> list[tuple[int, int]]:
        """Wait up to `timeout` milliseconds. A checkpoint unless it is 0."""
        thread = running()
        milliseconds = None if timeout is None else standard_time(timeout, LONGEST_POLL)
        if milliseconds is not None and not (milliseconds < 0 or milliseconds >= 1):
            give_way()
            return self._poll.poll(timeout)
        if thread is None:
            return wait_outside_scheduler(lambda: self._poll.poll(timeout), lambda: self._poll.poll(0), bool)
        thread._check()
        if self._under_way:
            raise RuntimeError("concurrent poll() invocation")
        # Negative means no limit, as None does.
        time_left = _TimeLeft(thread, None if milliseconds is None or milliseconds < 0 else milliseconds / 1000)
        wait = _Wait(thread, self._masks, time_left)
        self._under_way = True
        try:
            while True:
                ready: list[tuple[int, int]] = self._poll.poll(0)
                try:
                    if ready or not wait():
                        return ready
                except OSError as error:
                    # A descriptor was closed meanwhile. The original reports that as an event, POLLNVAL, unless its
                    # number means another file by now.
                    if error.errno != EBADF:
                        raise
                    thread._check()
        finally:
            self._under_way = False


# The name in error messages and pickles.
Poll.__module__, Poll.__qualname__, Poll.__name__ = "select", "poll", "poll"


class _KernelQueue:
    """Common part of epoll and kqueue objects: the kernel holds the registrations, and the descriptor can be polled."""

    def __init__(self, original: Any) -> None:
        self._queue = original

    @classmethod
    def over(cls, original: Any) -> Any:
        """Return an object that replaces `original` and keeps its registrations. Not a checkpoint."""
        made = cls.__new__(cls)
        _KernelQueue.__init__(made, original)
        return made

    @property
    def closed(self) -> bool:
        return self._queue.closed

    def fileno(self) -> int:
        return self._queue.fileno()

    def close(self) -> None:
        self._queue.close()

    def _wait(self, thread: VirtualThread, time_left: _TimeLeft) -> bool:
        ready = park_for_fd(thread, self._queue.fileno(), READ, time_left.left())
        thread._check()
        return ready


class Epoll(_KernelQueue):
    """Replacement for the `select.epoll` object."""

    def __init__(self, sizehint: int = -1, flags: int = 0) -> None:
        super().__init__(original_epoll(sizehint, flags))

    @classmethod
    def fromfd(cls, fd: int, /) -> Epoll:
        made: Epoll = cls.over(original_epoll.fromfd(fd))
        return made

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
        seconds = None if timeout is None else standard_time(timeout)
        if seconds is not None and not (seconds < 0 or seconds > 0):
            give_way()
            return self._queue.poll(timeout, maxevents)
        if thread is None:
            return wait_outside_scheduler(
                lambda: self._queue.poll(timeout, maxevents), lambda: self._queue.poll(0, maxevents), bool
            )
        thread._check()
        time_left = _TimeLeft(thread, None if seconds is None or seconds < 0 else seconds)
        while True:
            ready: list[tuple[int, int]] = self._queue.poll(0, maxevents)
            if ready or not self._wait(thread, time_left):
                return ready


class Kqueue(_KernelQueue):
    """Replacement for the `select.kqueue` object. Not tested on this project's CI."""

    def __init__(self) -> None:
        super().__init__(original_kqueue())

    @classmethod
    def fromfd(cls, fd: int, /) -> Kqueue:
        made: Kqueue = cls.over(original_kqueue.fromfd(fd))
        return made

    def control(self, changelist: Any, max_events: int, timeout: float | None = None, /) -> list[Any]:
        """Change registrations and wait up to `timeout` seconds. A checkpoint unless it or `max_events` is 0."""
        thread = running()
        if thread is None or timeout == 0 or max_events == 0:
            give_way()
            return self._queue.control(changelist, max_events, timeout)
        thread._check()
        time_left = _TimeLeft(thread, timeout)
        ready: list[Any] = self._queue.control(changelist, max_events, 0)
        while not ready and self._wait(thread, time_left):
            ready = self._queue.control(None, max_events, 0)
        return ready
