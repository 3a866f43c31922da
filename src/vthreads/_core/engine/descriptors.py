"""The waits for descriptors: the table between a poller and the fibers.

An entry belongs to the object that opened the descriptor (a socket), not to its number: a number that was closed and
reused gets a new entry, and waiters of the old entry are unparked. Readiness is stored per direction, so that a call
that would find nothing need not try. This module does not depend on what is read or written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from ..repeated import repeated_in
from .pollers import HANGUP, READ, URGENT, WRITE, Poller

__all__ = ["CLOSED", "Descriptor", "Descriptors", "modes_changed"]


class _Closed:
    def __repr__(self) -> str:
        return "CLOSED"


# The value that unparks a fiber whose descriptor was closed during its wait.
CLOSED = _Closed()

# Incremented by each change of the blocking mode of an open file, because it is unknown which sockets share the file.
_mode_version = 1


@repeated_in("_core/engine/compiled/descriptors.pxi")
def modes_changed() -> None:
    """Handle a change of the blocking mode of an open file by the program. From any OS thread."""
    global _mode_version
    _mode_version += 1


# Weak reference to the owner: a socket that the program drops would otherwise stay open, because its entry stays until
# it is closed.
Owner = Callable[[], Any]

# Linux: the option for the protocol on top of TCP. Python has no name for it.
TCP_ULP = 31


@repeated_in("_core/engine/compiled/descriptors.pxi")
def _is_plain_tcp(sock: Any) -> bool:
    """Return whether `sock` is TCP without a protocol on top. Reads of TLS or MPTCP may stop at a record."""
    # Imported here, since a program without sockets does not need it.
    import socket

    try:
        return isinstance(sock, socket.socket) and not sock.getsockopt(socket.IPPROTO_TCP, TCP_ULP, 16)[:1].strip(b"\0")
    except OSError:
        # Another kind of socket, or a system without this option.
        return False


class Waiter(Protocol):
    """A fiber, as this module uses it."""

    def _unpark(self, value: Any) -> bool: ...


@repeated_in("_core/engine/compiled/descriptors.pxi")
class Descriptor:
    """An entry: number, owner, known readiness, and waiters."""

    __slots__ = (
        "_mode",
        "_readers",
        "_writers",
        "always_ready",
        "ended",
        "fd",
        "hung_up",
        "owner",
        "readable",
        "short_read_drains",
    )

    def __init__(self, fd: int, owner: Owner | None) -> None:
        self.fd: int = fd
        self.owner: Owner | None = owner
        self.readable: bool = True
        # After a hangup no further edge may come, so readiness is kept from then on.
        self.hung_up: bool = False
        self.always_ready: bool = False
        # Directions that the owner has shut down. A fiber that waited for one of them finds the end of data, and no
        # error of a closed descriptor, even if the owner closes it before the fiber runs.
        self.ended: int = 0
        self._mode = 0
        # Whether a short read proves that the kernel's buffer is empty. Other kinds of sockets may stop a read early,
        # at the end of a message with descriptors or credentials. The rest of the data would cause no further edge.
        self.short_read_drains: bool = owner is not None and _is_plain_tcp(owner())
        self._readers: list[Waiter] = []
        self._writers: list[Waiter] = []

    @property
    def idle(self) -> bool:
        return not self._readers and not self._writers

    @property
    def mode_is_known(self) -> bool:
        """Whether the owner has called `waits`, and no blocking mode has changed since."""
        return self._mode == _mode_version

    def waits(self) -> None:
        """Record that calls of the owner wait: its open file is in blocking mode, or it has a timeout."""
        self._mode = _mode_version

    def drained(self) -> None:
        """Record that a read has emptied the buffer: the next edge will report new data."""
        self.readable = self.hung_up

    def _waiting(self, direction: int) -> list[Waiter]:
        return self._readers if direction & READ else self._writers

    def enlist(self, direction: int, waiter: Waiter) -> None:
        self._waiting(direction).append(waiter)

    def withdraw(self, direction: int, waiter: Waiter) -> None:
        waiting = self._waiting(direction)
        if waiter in waiting:
            waiting.remove(waiter)

    def directions_of(self, waiter: Waiter) -> list[int]:
        """Return the directions that `waiter` waits for. For inspection, from any OS thread."""
        return [direction for direction in (READ, WRITE) if waiter in self._waiting(direction)]

    def report(self, events: int) -> None:
        if events & HANGUP:
            self.hung_up = True
        if events & URGENT:
            self.short_read_drains = False
        if events & (READ | HANGUP):
            self.readable = True
            _unpark_all(self._readers, True)
        # A hangup concerns reading only. If writing has ended too, the poller reports WRITE.
        if events & WRITE:
            _unpark_all(self._writers, True)

    def end(self, directions: int) -> None:
        """Unpark the waiters for `directions`, which the owner has shut down."""
        if directions & READ:
            self.readable = True
            _unpark_all(self._readers, True)
        if directions & WRITE:
            _unpark_all(self._writers, True)

    def close(self) -> None:
        _unpark_all(self._readers, CLOSED)
        _unpark_all(self._writers, CLOSED)


@repeated_in("_core/engine/compiled/descriptors.pxi")
def _unpark_all(waiting: list[Waiter], value: Any) -> None:
    # Unpark all, not one: two readers may want different data of the descriptor, and each tries for itself.
    woken, waiting[:] = waiting[:], []
    for waiter in woken:
        waiter._unpark(value)


@repeated_in("_core/engine/compiled/descriptors.pxi")
class Descriptors:
    """The descriptors of one scheduler; used on its OS thread only."""

    def __init__(self, poller: Poller) -> None:
        self._poller = poller
        self._entries: dict[int, Descriptor] = {}
        self.waiting: int = 0

    def find(self, fd: int, owner: Any) -> Descriptor | None:
        """Return the entry of `owner`, if `fd` has one and it still belongs to the owner."""
        entry = self._entries.get(fd)
        if entry is not None and entry.owner is not None and entry.owner() is owner:
            return entry
        return None

    def claim(self, fd: int, owner: Owner) -> Descriptor:
        """Return the entry of `owner()`; create and register it if there is none."""
        entry = self.find(fd, owner())
        if entry is None:
            self.forget(fd)
            entry = self._register(Descriptor(fd, owner))
        return entry

    def borrow(self, fd: int) -> Descriptor:
        """Return an entry for a caller that has only the number, whatever file the number means now."""
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

        An owner has just tried without success, so the next edge is still to come. A caller that has only the number
        may already have missed the last edge, and the number may mean another file (dup, fork, reuse). So that case
        registers anew, which reports readiness that exists already.
        """
        if by_number:
            self._poller.rearm(entry.fd, direction)
        else:
            self._poller.arm(entry.fd, direction)
        entry.enlist(direction, waiter)
        self.waiting += 1

    def withdraw(self, entry: Descriptor, direction: int, waiter: Waiter) -> None:
        """Undo `enlist`; called after every wait, however it ended: a wait that stays counted hides a deadlock."""
        self.waiting -= 1
        entry.withdraw(direction, waiter)
        if entry.owner is None and entry.idle and self._entries.get(entry.fd) is entry:
            self.forget(entry.fd)

    def forget(self, fd: int) -> None:
        """Remove `fd`, which is about to be closed or means another file: its waiters are unparked with CLOSED."""
        entry = self._entries.pop(fd, None)
        if entry is not None:
            self._poller.unregister(fd)
            entry.close()

    def get(self, fd: int) -> Descriptor | None:
        """Return the entry of number `fd`, of any owner. From any OS thread."""
        return self._entries.get(fd)

    def forget_entry(self, entry: Descriptor) -> None:
        """`forget`, unless the number belongs to a later entry by now."""
        if self._entries.get(entry.fd) is entry:
            self.forget(entry.fd)

    def report(self, fd: int, events: int) -> None:
        """Handle an event of the poller: `fd` is ready."""
        entry = self._entries.get(fd)
        if entry is not None:
            entry.report(events)
