"""Wait until a descriptor is ready: parks a virtual thread, blocks a plain OS thread.

The poller is edge-triggered: it reports a change to "ready" once. So each caller follows one rule: try the system call
first, wait only if it reported "would block", and run no checkpoint in between. Then the descriptor was not ready when
the wait began, and the edge that ends the wait is still to come. A wait before the try could miss it and never end.
"""

from __future__ import annotations

import errno
import math
import os
import select as system_select
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from types import MappingProxyType
from typing import Any
from weakref import ref

from ..._core.current import carriers
from ..._core.engine import CLOSED, READ, TIMED_OUT, WRITE, Descriptor
from ..._core.originals import get_ident, poll, select
from ..._core.repeated import repeated_in
from ..._core.thread import VirtualThread
from ..._core.wait_queue import refuse_to_wait_inside_scheduler, waiter_here
from .modes import original_set_blocking as set_blocking

__all__ = [
    "READ",
    "WRITE",
    "at_once",
    "end_waits",
    "expect_urgent",
    "forget_fd",
    "has_read_end",
    "nonblocking",
    "park_for_fd",
    "park_for_fds",
    "park_for_library",
    "park_for_new",
    "park_for_owned",
    "ready_now",
    "refuse_inside_scheduler",
    "some_library",
    "wait_blocking",
]


# Not on every system.
POLLRDHUP = getattr(system_select, "POLLRDHUP", 0)

NO_OWNERS: Mapping[int, Any] = MappingProxyType({})


@repeated_in("_calls/net/compiled/attempts.pxi")
def park_for_owned(
    thread: VirtualThread, fd: int, direction: int, owner: Callable[[], Any], timeout: float | None
) -> bool:
    """Park until `fd`, opened by `owner()`, is ready; return False after `timeout` seconds. The owner has just tried.

    The entry of an owner is kept between waits, because the owner reports when it closes the descriptor.
    """
    descriptors = thread._scheduler.descriptors
    entry = descriptors.claim(fd, owner)
    return _park(thread, [(entry, direction)], timeout, by_number=False)


def park_for_fd(thread: VirtualThread, fd: int, direction: int, timeout: float | None = None) -> bool:
    """Park until descriptor number `fd` is ready; return False after `timeout` seconds.

    Only the number is known. It may have been closed and reused, so each wait registers it anew: a registration made
    earlier may belong to a file that is gone, and its edge may already have been reported.
    """
    return park_for_fds(thread, [(fd, direction)], timeout)


def park_for_new(thread: VirtualThread, fd: int, direction: int, timeout: float | None) -> bool:
    """Park until `fd` is ready, which the caller has just opened and closes afterwards; return False after `timeout`.

    It is registered once: that reports readiness that exists already.
    """
    descriptors = thread._scheduler.descriptors
    entry = descriptors.claim(fd, this_wait)
    try:
        return entry.always_ready or _park(thread, [(entry, direction)], timeout, by_number=False)
    finally:
        descriptors.forget_entry(entry)


@repeated_in("_calls/net/compiled/select.pxi")
def park_for_fds(
    thread: VirtualThread,
    wanted: Iterable[tuple[int, int]],
    timeout: float | None = None,
    owners: Mapping[int, Any] = NO_OWNERS,
) -> bool:
    """Park until one of the pairs (descriptor number, direction) is ready; return False after `timeout` seconds.

    Args:
        owners: sockets by number. Their registrations stay for the next wait, also for that of a socket call.
    """
    descriptors = thread._scheduler.descriptors
    entries = [
        (descriptors.claim(fd, ref(owners[fd])) if fd in owners else descriptors.borrow(fd), direction)
        for fd, direction in wanted
    ]
    if any(entry.always_ready for entry, _ in entries):
        return True
    return _park(thread, entries, timeout, by_number=True)


@repeated_in("_calls/files/compiled/reading.pxi")
def park_for_library(thread: VirtualThread, fd: int, directions: int, timeout: float | None = None) -> bool:
    """Park until `fd`, the socket of a C library or a pipe, is ready for one of `directions` (a sum of READ and WRITE).

    Like `park_for_fd`, but the registration stays for the next wait, which saves two system calls. Each wait still
    renews it: a library may have closed the file and opened another with the same number, without calling this module.
    """
    descriptors = thread._scheduler.descriptors
    entry = descriptors.get(fd) or descriptors.claim(fd, some_library)
    wanted = [(entry, direction) for direction in (READ, WRITE) if directions & direction]
    return _park(thread, wanted, timeout, by_number=True)


def this_wait() -> Any:
    """Owner of descriptors that are registered for one wait."""
    return this_wait


def some_library() -> Any:
    """Owner of all descriptors of C libraries. They share one: a number does not show which library opened it."""
    return some_library


@repeated_in("_calls/net/compiled/attempts.pxi")
@repeated_in("_calls/net/compiled/select.pxi")
@repeated_in("_calls/files/compiled/reading.pxi")
def _park(
    thread: VirtualThread, entries: list[tuple[Descriptor, int]], timeout: float | None, *, by_number: bool
) -> bool:
    descriptors = thread._scheduler.descriptors
    waiter = waiter_here()
    enlisted = []
    try:
        for entry, direction in entries:
            descriptors.enlist(entry, direction, waiter, by_number=by_number)
            enlisted.append((entry, direction))
        answer = waiter._park(None, timeout)
    finally:
        for entry, direction in enlisted:
            descriptors.withdraw(entry, direction, waiter)
    if answer is CLOSED:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    return answer is not TIMED_OUT


def wait_blocking(fd: int, direction: int, timeout: float | None) -> bool:
    """Block the calling OS thread until `fd` is ready; return False after `timeout` seconds.

    Raises:
        RuntimeError: the caller is inside the scheduler, and `fd` is not ready.
    """
    if timeout != 0 and get_ident() in carriers and not wait_blocking(fd, direction, 0):
        refuse_to_wait_inside_scheduler()
    if poll is None:
        readers, writers = ([fd], []) if direction & READ else ([], [fd])
        return any(select(readers, writers, [], timeout))
    interest = poll()
    # poll(2) has its own numbers for the directions: POLLIN 1, POLLOUT 4.
    interest.register(fd, 1 if direction & READ else 4)
    return bool(interest.poll(None if timeout is None else math.ceil(max(timeout, 0) * 1000)))


def has_read_end(fd: int) -> bool:
    """Return whether the reading end of `fd` was shut down."""
    if poll is None or not POLLRDHUP:
        return False
    interest = poll()
    interest.register(fd, POLLRDHUP)
    return any(events & POLLRDHUP for _, events in interest.poll(0))


def refuse_inside_scheduler(fd: int, direction: int) -> None:
    """Refuse a call on `fd` that would wait for `direction`, made on a carrier but outside any virtual thread.

    Raises:
        RuntimeError: the caller is inside the scheduler, and the call would wait.
    """
    if get_ident() in carriers and os.get_blocking(fd):
        wait_blocking(fd, direction, None)


def ready_now(fd: int, directions: int) -> int:
    """Return which of `directions` (READ, WRITE or their sum) `fd` is ready for, without waiting."""
    return sum(direction for direction in (READ, WRITE) if directions & direction and wait_blocking(fd, direction, 0))


@repeated_in("_calls/files/compiled/raw.pxi")
def forget_fd(fd: int) -> None:
    """Unpark all waiters for `fd`, on every carrier; called before `fd` is closed or gets another file."""
    here = get_ident()
    for ident, scheduler in list(carriers.items()):
        if ident == here:
            scheduler.descriptors.forget(fd)
        else:
            # When the other carrier runs this, `fd` may be the number of a new file there. So pass the entry.
            entry = scheduler.descriptors.get(fd)
            if entry is not None:
                scheduler.post(scheduler.descriptors.forget_entry, entry)


def end_waits(fd: int, directions: int) -> None:
    """Unpark the waiters for `directions` (READ, WRITE or their sum) of `fd`, which its owner has shut down."""
    here = get_ident()
    for ident, scheduler in list(carriers.items()):
        entry = scheduler.descriptors.get(fd)
        if entry is None or entry.idle:
            continue
        # Noted at once: the other carrier may learn of the shutdown from its poller before it runs what is posted.
        entry.ended |= directions
        if ident == here:
            entry.end(directions)
        else:
            scheduler.post(entry.end, directions)


def expect_urgent(fd: int) -> None:
    """Handle a read of urgent data of `fd`: from now on a short read does not prove that the socket is empty.

    A read stops at the mark of the urgent data, and ordinary data may follow it. The poller does not help: once the
    urgent data are read, it no longer reports them. So a read must end with "would block" before a thread may park.
    """
    for scheduler in list(carriers.values()):
        entry = scheduler.descriptors.get(fd)
        if entry is not None:
            entry.short_read_drains = False


def at_once(fd: int, direction: int) -> AbstractContextManager[None]:
    """Return a context manager in which a system call on `fd` fails instead of waiting; for calls without such a flag.

    Raises:
        BlockingIOError: raised here or by the call, if the call would have to wait.
    """
    # Python opens descriptors non-inheritable (PEP 446). An inheritable one came through an `exec`, or may go through
    # one, so other programs may share the open file and would see O_NONBLOCK. Check readiness instead of setting it.
    if os.get_inheritable(fd) and os.get_blocking(fd):
        if not wait_blocking(fd, direction, 0):
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return nullcontext()
    return nonblocking(fd)


class nonblocking:  # noqa: N801  used like a function: `with nonblocking(fd):`
    """Make `fd` non-blocking for one system call, and restore the flag at once, because it belongs to the open file."""

    __slots__ = ("_fd", "was_blocking")

    was_blocking: bool

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __enter__(self) -> None:
        self.was_blocking = os.get_blocking(self._fd)
        if self.was_blocking:
            set_blocking(self._fd, False)

    def __exit__(self, *_: object) -> None:
        if self.was_blocking:
            set_blocking(self._fd, True)
