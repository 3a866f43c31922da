"""Who waits for which descriptor: the table between a poller and the fibers.

A descriptor belongs to the object that opened it (a socket), not to its number: a number that was closed and given out
again gets a fresh entry, and whoever still waited on the old one is told. Readiness is remembered per direction, so
that a call which is known to find nothing does not try. Nothing here knows what is read or written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from .pollers import HANGUP, READ, WRITE, Poller

__all__ = ["CLOSED", "Descriptor", "Descriptors"]


class _Closed:
    def __repr__(self) -> str:
        return "CLOSED"


# What a waiting fiber is unparked with when its descriptor was closed under it.
CLOSED = _Closed()

# Weak, and called to get the owner: an entry must not keep a socket alive.
Owner = Callable[[], Any]


class Waiter(Protocol):
    """A fiber, seen from here."""

    def unpark(self, value: Any) -> bool: ...


class Descriptor:
    """One entry: number, owner, what is known to be ready, and who waits."""

    __slots__ = ("_readers", "_writers", "always_ready", "fd", "owner", "readable", "writable", "hung_up")

    def __init__(self, fd: int, owner: Owner | None) -> None:
        self.fd = fd
        self.owner = owner
        self.readable = self.writable = True
        # After a hangup no further edge may come, so readiness is never forgotten again.
        self.hung_up = False
        self.always_ready = False
        self._readers: list[Waiter] = []
        self._writers: list[Waiter] = []

    @property
    def idle(self) -> bool:
        return not self._readers and not self._writers

    def drained(self) -> None:
        """A read took all there was: the next edge will say when there is more."""
        self.readable = self.hung_up

    def _waiting(self, direction: int) -> list[Waiter]:
        return self._readers if direction & READ else self._writers

    def enlist(self, direction: int, waiter: Waiter) -> None:
        self._waiting(direction).append(waiter)

    def withdraw(self, direction: int, waiter: Waiter) -> None:
        waiting = self._waiting(direction)
        if waiter in waiting:
            waiting.remove(waiter)

    def report(self, events: int) -> None:
        if events & HANGUP:
            self.hung_up = True
        if events & (READ | HANGUP):
            self.readable = True
            _unpark_all(self._readers, True)
        # The end of what comes in says nothing of what goes out: where that is over as well, it is reported as such.
        if events & WRITE:
            self.writable = True
            _unpark_all(self._writers, True)

    def close(self) -> None:
        _unpark_all(self._readers, CLOSED)
        _unpark_all(self._writers, CLOSED)


def _unpark_all(waiting: list[Waiter], value: Any) -> None:
    # All and not one: two readers may want different things of one descriptor, and each tries again for itself.
    woken, waiting[:] = waiting[:], []
    for waiter in woken:
        waiter.unpark(value)


class Descriptors:
    """The descriptors of one scheduler; used on its OS thread only."""

    def __init__(self, poller: Poller) -> None:
        self._poller = poller
        self._entries: dict[int, Descriptor] = {}
        self.waiting = 0

    def find(self, fd: int, owner: Any) -> Descriptor | None:
        """The entry of `owner`, if `fd` is known and still its own."""
        entry = self._entries.get(fd)
        if entry is not None and entry.owner is not None and entry.owner() is owner:
            return entry
        return None

    def claim(self, fd: int, owner: Owner) -> Descriptor:
        """The entry of `owner()`, made and registered if need be."""
        entry = self.find(fd, owner())
        if entry is None:
            self.forget(fd)
            entry = self._register(Descriptor(fd, owner))
        return entry

    def borrow(self, fd: int) -> Descriptor:
        """An entry for somebody who has only the number: whatever file it means now."""
        entry = self._entries.get(fd)
        if entry is None:
            return self._register(Descriptor(fd, None))
        return entry

    def _register(self, entry: Descriptor) -> Descriptor:
        try:
            self._poller.register(entry.fd)
        except PermissionError:
            entry.always_ready = True
        self._entries[entry.fd] = entry
        return entry

    def enlist(self, entry: Descriptor, direction: int, waiter: Waiter, *, by_number: bool) -> None:
        """Queue `waiter` for `direction` (READ or WRITE).

        An owner has tried and found nothing, so the next edge is news. Who has only the number may have missed the
        last edge, and the number may have changed its meaning: that takes a fresh registration.
        """
        if by_number:
            self._poller.rearm(entry.fd, direction)
        else:
            self._poller.arm(entry.fd, direction)
        entry.enlist(direction, waiter)
        self.waiting += 1

    def withdraw(self, entry: Descriptor, direction: int, waiter: Waiter) -> None:
        """Undo `enlist`; due after every wait, however it ended."""
        self.waiting -= 1
        entry.withdraw(direction, waiter)
        if entry.owner is None and entry.idle and self._entries.get(entry.fd) is entry:
            self.forget(entry.fd)

    def forget(self, fd: int) -> None:
        """`fd` is about to be closed, or means another file by now: whoever waits for it gets CLOSED."""
        entry = self._entries.pop(fd, None)
        if entry is not None:
            self._poller.unregister(fd)
            entry.close()

    def get(self, fd: int) -> Descriptor | None:
        """The entry of number `fd`, whoever owns it. From any OS thread."""
        return self._entries.get(fd)

    def forget_entry(self, entry: Descriptor) -> None:
        """`forget`, unless the number belongs to a later entry by now."""
        if self._entries.get(entry.fd) is entry:
            self.forget(entry.fd)

    def waits(self) -> list[tuple[Descriptor, int, Waiter]]:
        """Who waits for which entry and direction. For looking at, from any OS thread."""
        return [
            (entry, direction, waiter)
            for entry in list(self._entries.values())
            for direction in (READ, WRITE)
            for waiter in list(entry._waiting(direction))
        ]

    def report(self, fd: int, events: int) -> None:
        """The poller says that `fd` is ready."""
        entry = self._entries.get(fd)
        if entry is not None:
            entry.report(events)
