"""Waiting until a descriptor is ready: parks a virtual thread, blocks a plain OS thread.

The edge-triggered rule, kept here once: try first, and wait only when the try said "would block", with no checkpoint in
between. Then the edge that ends the wait cannot have been reported before the wait began.
"""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from .._core.current import carriers
from .._core.engine import CLOSED, READ, TIMED_OUT, WRITE, Descriptor
from .._core.originals import get_ident, poll, select
from .._core.thread import VirtualThread

__all__ = [
    "READ",
    "WRITE",
    "at_once",
    "forget_fd",
    "nonblocking",
    "park_for_fd",
    "park_for_fds",
    "park_for_library",
    "park_for_owned",
    "ready_now",
    "wait_blocking",
]


def park_for_owned(
    thread: VirtualThread, fd: int, direction: int, owner: Callable[[], Any], timeout: float | None
) -> bool:
    """Park until `fd`, opened by `owner()`, is ready; false after `timeout` seconds. The owner has just tried."""
    descriptors = thread.scheduler.descriptors
    entry = descriptors.claim(fd, owner)
    return _park(thread, [(entry, direction)], timeout, by_number=False)


def park_for_fd(thread: VirtualThread, fd: int, direction: int, timeout: float | None = None) -> bool:
    """Park until descriptor number `fd` is ready, whatever file it means; false after `timeout` seconds."""
    return park_for_fds(thread, [(fd, direction)], timeout)


def park_for_fds(thread: VirtualThread, wanted: Iterable[tuple[int, int]], timeout: float | None = None) -> bool:
    """Park until one of the pairs of descriptor number and direction is ready; false after `timeout` seconds."""
    borrow = thread.scheduler.descriptors.borrow
    entries = [(borrow(fd), direction) for fd, direction in wanted]
    if any(entry.always_ready for entry, _ in entries):
        return True
    return _park(thread, entries, timeout, by_number=True)


def park_for_library(thread: VirtualThread, fd: int, directions: int, timeout: float | None = None) -> bool:
    """Park until `fd`, a socket that a C library keeps, is ready for one of `directions` (a sum of READ and WRITE).

    As `park_for_fd`, but the registration is kept for the next wait. Each wait renews it all the same: the library may
    have closed the socket, and opened another one of that number, without a word.
    """
    descriptors = thread.scheduler.descriptors
    entry = descriptors.get(fd) or descriptors.claim(fd, _some_library)
    wanted = [(entry, direction) for direction in (READ, WRITE) if directions & direction]
    return _park(thread, wanted, timeout, by_number=True)


def _some_library() -> Any:
    """The owner of what C libraries keep: one for all, since none can be told from another by the number."""
    return _some_library


def _park(
    thread: VirtualThread, entries: list[tuple[Descriptor, int]], timeout: float | None, *, by_number: bool
) -> bool:
    descriptors = thread.scheduler.descriptors
    enlisted = []
    try:
        for entry, direction in entries:
            descriptors.enlist(entry, direction, thread, by_number=by_number)
            enlisted.append((entry, direction))
        answer = thread.park(None, timeout)
    finally:
        for entry, direction in enlisted:
            descriptors.withdraw(entry, direction, thread)
    if answer is CLOSED:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    return answer is not TIMED_OUT


def wait_blocking(fd: int, direction: int, timeout: float | None) -> bool:
    """The same for a plain OS thread, which blocks."""
    if poll is None:
        readers, writers = ([fd], []) if direction & READ else ([], [fd])
        return any(select(readers, writers, [], timeout))
    interest = poll()
    # poll(2) has its own numbers for the directions: POLLIN 1, POLLOUT 4.
    interest.register(fd, 1 if direction & READ else 4)
    return bool(interest.poll(None if timeout is None else math.ceil(max(timeout, 0) * 1000)))


def ready_now(fd: int, directions: int) -> int:
    """Those of `directions` (READ, WRITE or their sum) that `fd` is ready for, found without waiting."""
    return sum(direction for direction in (READ, WRITE) if directions & direction and wait_blocking(fd, direction, 0))


def forget_fd(fd: int) -> None:
    """`fd` is about to be closed or to mean another file: tell everybody who waits for it, on every carrier."""
    here = get_ident()
    for ident, scheduler in list(carriers.items()):
        if ident == here:
            scheduler.descriptors.forget(fd)
        else:
            # Until the carrier hears of it, the number may have become that of a file of its own: the entry tells.
            entry = scheduler.descriptors.get(fd)
            if entry is not None:
                scheduler.post(scheduler.descriptors.forget_entry, entry)


def at_once(fd: int, direction: int) -> AbstractContextManager[bool]:
    """Keep a system call that has no flag for it (accept, sendfile) from waiting for `fd`; to be used by `with`.

    The block is told whether it may ask for as much as it likes; otherwise what does not fit makes it wait.

    Raises:
        BlockingIOError: here or by the call, if it would have to wait.
    """
    # What Python opens itself is not inheritable (PEP 446). This came over an `exec`, or may go over one, so that other
    # programs share the open file, and with it the flag: it is looked at before the call instead.
    if os.get_inheritable(fd) and os.get_blocking(fd):
        if not wait_blocking(fd, direction, 0):
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return nullcontext(False)
    return nonblocking(fd)


class nonblocking:  # noqa: N801  used like a function: `with nonblocking(fd):`
    """Make `fd` non-blocking for one system call, and put the flag back at once: it belongs to the open file."""

    __slots__ = ("_fd", "_was_blocking")

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __enter__(self) -> bool:
        self._was_blocking = os.get_blocking(self._fd)
        if self._was_blocking:
            os.set_blocking(self._fd, False)
        return True

    def __exit__(self, *_: object) -> None:
        if self._was_blocking:
            os.set_blocking(self._fd, True)
