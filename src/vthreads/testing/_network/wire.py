"""One direction of a connection in memory: bytes in transit, and bytes that have arrived.

A wire stores the arrival time of each piece, on the runtime's clock, and uses no timers: a reader parks until then.
While the wire is cut, pieces stay in transit, as if the network sent them again, and continue when it is reconnected.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable
from math import inf
from typing import TypeVar

from ..._core.engine import TIMED_OUT, Section
from ..._core.runtime import now
from ..._core.wait_queue import WaitQueue, waiter_here

__all__ = ["Wire"]

T = TypeVar("T")


class Wire:
    """Transmits bytes from one socket to another.

    Args:
        hosts: names of the sender's and the receiver's host.
        latency: called for each piece; returns its transit time in seconds. Pieces never overtake each other.
        capacity: bytes in transit and unread beyond which the sender must wait.
        is_cut: whether it is cut initially.
    """

    def __init__(self, hosts: tuple[str, str], latency: Callable[[], float], capacity: int, is_cut: bool) -> None:
        self.hosts = hosts
        self._latency = latency
        self._capacity = capacity
        self._is_cut = is_cut
        # Pieces with their arrival times; `inf` while the wire is cut.
        self._pieces: deque[tuple[float, bytes]] = deque()
        self._size = 0
        self._latest = -inf
        # When the receiver sees that the sender has ended, and the sender that the receiver has; None: not ended.
        self._end: float | None = None
        self._refusal: float | None = None
        self._is_broken = False
        # Reentrant: the garbage collector may run a finalizer that closes a socket while this thread holds it.
        self._changing = Section()
        self._readers, self._writers = WaitQueue(), WaitQueue()

    # --- attempts, which do not wait: None means "would block"

    def take(self, size: int, peek: bool = False) -> bytes | None:
        """Take up to `size` bytes that have arrived; b"" at the end of the stream. Not a checkpoint; thread-safe."""
        with self._changing:
            self._check_whole()
            moment, taken = now(), b""
            for arrival, piece in self._pieces:
                if arrival > moment or len(taken) >= size:
                    break
                taken += piece[: size - len(taken)]
            if taken or not size:
                if not peek:
                    self._drop_front(len(taken))
                return taken
            is_over = self._end is not None and self._end <= moment and not self._pieces
            return b"" if is_over or self._refusal is not None else None

    def put(self, data: memoryview) -> int | None:
        """Send as much of `data` as fits; return its size. Not a checkpoint; thread-safe."""
        with self._changing:
            self._check_whole()
            if self._end is not None or (self._refusal is not None and self._refusal <= now()):
                raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
            room = min(len(data), self._capacity - self._size)
            if room <= 0:
                return None if len(data) else 0
            self._pieces.append((self._arrival(), bytes(data[:room])))
            self._size += room
            self._readers.unpark_all()
            return room

    def _drop_front(self, size: int) -> None:
        self._size -= size
        while size:
            arrival, piece = self._pieces.popleft()
            if len(piece) > size:
                self._pieces.appendleft((arrival, piece[size:]))
                size = 0
            else:
                size -= len(piece)
            self._writers.unpark_all()

    def _arrival(self) -> float:
        if self._is_cut:
            return inf
        self._latest = max(self._latest, now() + self._latency())
        return self._latest

    def _check_whole(self) -> None:
        if self._is_broken:
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))

    # --- waiting

    # Each calls `check`, which raises if the caller's own socket has been closed meanwhile.

    def wait_to_take(self, size: int, deadline: float, check: Callable[[], None], peek: bool = False) -> bytes:
        """`take` once there is something to take, before the time `deadline`. Parks."""
        return self._wait(lambda: self.take(size, peek), self._readers, self._next_for_reader, deadline, check)

    def wait_to_put(self, data: memoryview, deadline: float, check: Callable[[], None]) -> int:
        """`put` once there is room, before the time `deadline`. Parks."""
        return self._wait(lambda: self.put(data), self._writers, lambda: self._refusal, deadline, check)

    def _wait(
        self,
        attempt: Callable[[], T | None],
        queue: WaitQueue,
        next_event: Callable[[], float | None],
        deadline: float,
        check: Callable[[], None],
    ) -> T:
        timed_out = False
        while True:
            waiter = waiter_here()
            with self._changing:
                check()
                answer = attempt()
                if answer is not None:
                    return answer
                if timed_out and now() >= deadline:
                    raise TimeoutError("timed out")
                event = next_event()
                queue.add(waiter)
            until = deadline if event is None else min(deadline, event)
            timed_out = queue.park(waiter, None if until == inf else max(0.0, until - now())) is TIMED_OUT

    def _next_for_reader(self) -> float | None:
        return self._pieces[0][0] if self._pieces else self._end

    # --- end and disturbances

    def end(self) -> None:
        """End the stream: the sender sends no more. The receiver sees the end after the last byte."""
        with self._changing:
            if self._end is None:
                self._end = self._arrival()
            self._notify_all()

    def refuse(self) -> None:
        """Refuse further data: the receiver reads no more. The sender sees that after the latency."""
        with self._changing:
            if self._refusal is None:
                self._refusal = inf if self._is_cut else now() + self._latency()
            self._notify_all()

    def break_off(self) -> None:
        """Lose the connection: both ends get an error at once, and data in transit are lost."""
        with self._changing:
            self._is_broken = True
            self._pieces.clear()
            self._notify_all()

    def cut(self) -> None:
        """Cut the wire: pieces that have not arrived yet stay in transit."""
        with self._changing:
            self._is_cut = True
            self._reschedule(lambda: inf)

    def reconnect(self) -> None:
        """Reconnect the wire: pieces that were cut off continue."""
        with self._changing:
            if not self._is_cut:
                return
            self._is_cut = False
            self._reschedule(self._arrival)
            self._notify_all()

    def _reschedule(self, arrival: Callable[[], float]) -> None:
        moment = now()
        self._pieces = deque((when if when <= moment else arrival(), piece) for when, piece in self._pieces)
        if self._end is not None and self._end > moment:
            self._end = arrival()
        if self._refusal is not None and self._refusal > moment:
            self._refusal = arrival()

    def _notify_all(self) -> None:
        self._readers.unpark_all()
        self._writers.unpark_all()
