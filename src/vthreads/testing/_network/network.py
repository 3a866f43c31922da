"""A network in memory: connections between named hosts that can be delayed, cut and lost."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from itertools import count
from math import inf
from queue import Empty, Full
from typing import Any, Self
from weakref import WeakSet

from ..._core.arguments import checked_count, checked_span
from ..._core.current import check_here
from ..._core.engine import TIMED_OUT
from ..._core.runtime import now
from ..._core.wait_queue import WaitQueue, waiter_here
from ..._sync.queues import Queue
from ...errors import ShutDown
from .socket import Address, MemorySocket, SocketInMemory, failure
from .wire import Wire

__all__ = ["MemoryListener", "Network", "memory_socketpair"]

CAPACITY = 65_536
# The first port number for ends that got none, as in the system's ephemeral range.
FIRST_PORT = 49_152


class MemoryListener(SocketInMemory):
    """A listening socket at an address of a `Network`. Created by `Network.listen`."""

    def _init_listener(self, network: Network, address: Address, backlog: int) -> Self:
        self._init_socket(address)
        self._network = network
        self._waiting: Queue[MemorySocket] = Queue(backlog)
        return self

    def accept(self) -> tuple[socket.socket, Address]:
        """Like `socket.socket.accept`: the next connection and the address of its peer. A checkpoint."""
        waits = self._may_wait()
        try:
            sock = self._waiting.get(waits, self._timeout if waits else None)
        except Empty:
            raise TimeoutError("timed out") if waits else failure(errno.EAGAIN) from None
        except ShutDown:
            raise failure(errno.EBADF) from None
        return sock, sock.getpeername()

    def offer(self, sock: MemorySocket) -> bool:
        """Queue the server's end of a connection; return False if the queue is full or closed. Not a checkpoint."""
        try:
            self._waiting.put_nowait(sock)
        except (Full, ShutDown):
            return False
        return True

    def _real_close(self, *_: Any) -> None:
        self._network.forget(self)
        # Ends the waits in `accept`, and closes connections that were not accepted.
        self._waiting.shutdown()
        while True:
            try:
                self._waiting.get_nowait().close()
            except ShutDown:
                return


class Network:
    """Hosts by name, and connections between them, on the runtime's clock.

    Its sockets (see `MemorySocket`) are used like any others; the methods here disturb their connections. Thread-safe.

    Args:
        latency: seconds from one end to the other, or a function that returns them for each piece (`lambda:
            random.uniform(0.01, 0.1)`). Pieces arrive in the order in which they were sent.
        capacity: bytes in transit and unread, per direction of a connection, beyond which senders wait.
    """

    def __init__(self, latency: float | Callable[[], float] = 0.0, *, capacity: int = CAPACITY) -> None:
        seconds = 0.0 if callable(latency) else checked_span(latency, "latency")
        self._latency: Callable[[], float] = latency if callable(latency) else lambda: seconds
        self._capacity = checked_count(capacity, "capacity", 1)
        self._ports = count(FIRST_PORT)
        self._listeners: dict[Address, MemoryListener] = {}
        self._wires: WeakSet[Wire] = WeakSet()
        # Groups of hosts that are cut off from all others; an empty group cuts every host off from every other.
        self._cuts: list[frozenset[str]] = []
        self._healing = WaitQueue()

    # --- connections

    def socketpair(self, a: str = "a", b: str = "b") -> tuple[MemorySocket, MemorySocket]:
        """Return two connected sockets, on the hosts `a` and `b`. Not a checkpoint."""
        return self._connected((a, next(self._ports)), (b, next(self._ports)))

    def listen(self, address: Address, backlog: int = 128) -> MemoryListener:
        """Listen at `address`, a host name and a port (0: any free port). Not a checkpoint.

        Raises:
            OSError: the address is already in use.
        """
        host, port = address
        address = host, port or next(self._ports)
        if address in self._listeners:
            raise failure(errno.EADDRINUSE)
        listener = MemoryListener.__new__(MemoryListener)._init_listener(self, address, backlog)
        self._listeners[address] = listener
        return listener

    def connect(
        self, address: Address, timeout: float | None = None, source_address: Address | None = None, **_: Any
    ) -> MemorySocket:
        """Connect to the listener at `address`; takes twice the latency. A checkpoint.

        Has the parameters of `socket.create_connection`, so that it can replace it.

        Args:
            address: host name and port.
            timeout: seconds, for connecting and then as the socket's timeout; None for no limit.
            source_address: address of the caller; by default the host is named "client".

        Raises:
            ConnectionRefusedError: there is no listener, or its queue is full.
            TimeoutError: the hosts are partitioned, or the latency is longer than `timeout`.
        """
        check_here()
        limited = isinstance(timeout, int | float)
        deadline = now() + timeout if limited and timeout is not None else inf
        mine = source_address or ("client", 0)
        mine = mine[0] or "client", mine[1] or next(self._ports)
        self._reach(mine[0], address[0], deadline)
        listener = self._listeners.get((address[0], address[1]))
        here, there = self._connected(mine, (address[0], address[1]))
        if listener is None or not listener.offer(there):
            here.close()
            there.close()
            raise failure(errno.ECONNREFUSED)
        here.settimeout(timeout if limited else socket.getdefaulttimeout())
        return here

    def _reach(self, source: str, target: str, deadline: float) -> None:
        """Wait for a round trip between the hosts; while they are partitioned, it does not start."""
        while self._is_cut((source, target)):
            self._park(deadline)
        arrival = now() + self._latency() + self._latency()
        while now() < min(arrival, deadline):
            self._park(min(arrival, deadline), expires=arrival > deadline)
        if arrival > deadline:
            raise TimeoutError("timed out")

    def _park(self, until: float, expires: bool = True) -> None:
        waiter = waiter_here()
        self._healing.add(waiter)
        if self._healing.park(waiter, None if until == inf else until - now()) is TIMED_OUT and expires:
            raise TimeoutError("timed out")

    def _connected(self, a: Address, b: Address) -> tuple[MemorySocket, MemorySocket]:
        there, back = self._wire(a[0], b[0]), self._wire(b[0], a[0])
        new = MemorySocket.__new__
        return new(MemorySocket)._init_end(back, there, a, b), new(MemorySocket)._init_end(there, back, b, a)

    def _wire(self, source: str, target: str) -> Wire:
        hosts = source, target
        wire = Wire(hosts, self._latency, self._capacity, self._is_cut(hosts))
        self._wires.add(wire)
        return wire

    def forget(self, listener: MemoryListener) -> None:
        """Remove `listener`, which has been closed. Not a checkpoint."""
        self._listeners.pop(listener.getsockname(), None)

    # --- disturbances

    def partition(self, *hosts: str) -> None:
        """Cut `hosts` off from all others; without arguments, every host from every other. Not a checkpoint.

        Data sent during and data in transit arrive after `heal()`. Senders can continue until the capacity is reached.
        """
        self._cuts.append(frozenset(hosts))
        for wire in list(self._wires):
            if self._is_cut(wire.hosts):
                wire.cut()

    def heal(self) -> None:
        """Undo every `partition`. Not a checkpoint."""
        self._cuts.clear()
        for wire in list(self._wires):
            wire.reconnect()
        self._healing.unpark_all()

    def drop(self, *hosts: str) -> None:
        """Lose the connections of `hosts`; without arguments, all connections. Not a checkpoint.

        Data in transit are lost, and every later call on the connections raises `ConnectionResetError`.
        """
        for wire in list(self._wires):
            if not hosts or not set(hosts).isdisjoint(wire.hosts):
                wire.break_off()

    def _is_cut(self, hosts: tuple[str, str]) -> bool:
        source, target = hosts
        if source == target:
            return False
        return any(not cut or (source in cut) != (target in cut) for cut in self._cuts)


def memory_socketpair(
    latency: float | Callable[[], float] = 0.0, *, capacity: int = CAPACITY
) -> tuple[MemorySocket, MemorySocket]:
    """Return two connected sockets in memory: `socket.socketpair` for tests. Not a checkpoint.

    Args:
        latency: seconds between the two on the runtime's clock, or a function that returns them for each piece.
        capacity: bytes in transit and unread, per direction, beyond which senders wait.
    """
    return Network(latency, capacity=capacity).socketpair()
