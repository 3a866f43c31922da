"""Channels: items from senders to receivers, with an end. Modelled on Go's channels and Trio's memory channels."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ._core.current import checkpoint
from ._core.engine import TIMED_OUT
from ._core.originals import RLock
from ._core.runtime import now
from ._core.wait_queue import Ticket, Waiter, WaitQueue, waiter_here
from .errors import ChannelClosed

__all__ = ["Channel", "ChannelStatistics", "receive_any"]

T = TypeVar("T")


@dataclass(frozen=True)
class ChannelStatistics:
    """A look at a channel: items in its buffer, and how many wait to send and to receive."""

    buffered: int
    waiting: int
    senders: int
    receivers: int
    closed: bool


class _Closed:
    """What waiters of a channel are unparked with when it is closed."""


CLOSED = _Closed()


class _Offer:
    """A sender that waits, with its item. Whoever receives passes the function that takes the item."""

    __slots__ = ("_item", "_waiter")

    def __init__(self, waiter: Waiter, item: Any) -> None:
        self._waiter = waiter
        self._item = item

    def unpark(self, take: Callable[[Any], object] | _Closed) -> bool:
        if isinstance(take, _Closed):
            return self._waiter.unpark(take)
        take(self._item)
        return self._waiter.unpark(True)


class Channel(Generic[T]):
    """A way for items from any senders to any receivers, first come, first served.

    Iterating receives until the channel is closed and empty.

    Args:
        capacity: items it holds before `send` waits; 0: `send` waits until its item is received.

    Raises:
        ValueError: `capacity` is negative.
    """

    def __init__(self, capacity: int = 0) -> None:
        if capacity < 0:
            raise ValueError(f"capacity={capacity}: give 0 for a rendezvous, or the number of items to buffer")
        self._capacity = capacity
        self._closed = False
        self._buffer: deque[T] = deque()
        # Reentrant, because a finalizer that closes may run inside.
        self._changing = RLock()
        self._sending = WaitQueue()
        self._receiving = WaitQueue()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<Channel {state} buffered={len(self._buffer)}/{self._capacity}>"

    def send(self, item: T, timeout: float | None = None) -> None:
        """Send `item`, waiting for room or, without a buffer, for its receiver. Thread-safe.

        A checkpoint if it may wait. If it raises, nothing was sent.

        Args:
            item: anything.
            timeout: seconds, or None for no limit; 0 not to wait.

        Raises:
            ChannelClosed: the channel was closed, before or while waiting.
            TimeoutError: nobody took it in time.
        """
        waits = _may_wait(timeout)
        if waits:
            checkpoint()
        with self._changing:
            if self._closed:
                raise ChannelClosed(f"{self!r} takes no more items")
            if self._receiving.unpark_one(item):
                return
            if self._has_room():
                self._buffer.append(item)
                return
            if not waits:
                raise TimeoutError(f"nobody receives from {self!r} right now")
            waiter = waiter_here()
            offer = _Offer(waiter, item)
            self._sending.add(offer)
            missed = (self._has_room() or self._closed) and self._sending.withdraw(offer)
        if missed:
            # A finalizer received or closed between the look and the queueing.
            self.send(item, timeout)
            return
        answer = waiter.park(lambda: self._sending.withdraw(offer), timeout)
        if answer is TIMED_OUT:
            raise TimeoutError(f"nobody received from {self!r} within {timeout} seconds")
        if answer is CLOSED:
            raise ChannelClosed(f"{self!r} was closed before the item was received")

    def receive(self, timeout: float | None = None) -> T:
        """Take the next item, waiting for one. A checkpoint if it may wait; thread-safe. If it raises, none was taken.

        Args:
            timeout: seconds, or None for no limit; 0 not to wait.

        Raises:
            ChannelClosed: the channel is closed and everything sent has been received.
            TimeoutError: nothing was sent in time.
        """
        waits = _may_wait(timeout)
        if waits:
            checkpoint()
        with self._changing:
            items = self._take()
            if items:
                return items[0]
            if self._closed:
                raise ChannelClosed(f"{self!r} has nothing more to receive")
            if not waits:
                raise TimeoutError(f"nothing was sent to {self!r} yet")
            waiter = waiter_here()
            self._receiving.add(waiter)
            missed = (self._buffer or self._closed) and self._receiving.withdraw(waiter)
        if missed:
            # A finalizer sent or closed between the look and the queueing.
            return self.receive(timeout)
        answer: Any = self._receiving.park(waiter, timeout)
        if answer is TIMED_OUT:
            raise TimeoutError(f"nothing was sent to {self!r} within {timeout} seconds")
        if answer is CLOSED:
            raise ChannelClosed(f"{self!r} was closed while waiting for an item")
        return answer  # type: ignore[no-any-return]  # the item, handed over

    def _has_room(self) -> bool:
        return len(self._buffer) < self._capacity

    def _take(self) -> list[T]:
        """Take the next item, in a list; an empty list if there is none."""
        items: list[T] = []
        if self._buffer:
            items.append(self._buffer.popleft())
            self._sending.unpark_one(self._buffer.append)
        else:
            self._sending.unpark_one(items.append)
        return items

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        try:
            return self.receive()
        except ChannelClosed:
            raise StopIteration from None

    def close(self) -> None:
        """End the channel: later and waiting sends raise `ChannelClosed`, receivers get what is buffered first.

        Idempotent; not a checkpoint; thread-safe.
        """
        with self._changing:
            self._closed = True
            self._sending.unpark_all(CLOSED)
            self._receiving.unpark_all(CLOSED)

    @property
    def closed(self) -> bool:
        """Whether it was closed; there may still be something to receive."""
        return self._closed

    def __enter__(self) -> Channel[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def statistics(self) -> ChannelStatistics:
        """Items and waiters right now. Not a checkpoint; thread-safe."""
        senders, receivers = len(self._sending), len(self._receiving)
        return ChannelStatistics(len(self._buffer), senders + receivers, senders, receivers, self._closed)


def _may_wait(timeout: float | None) -> bool:
    return timeout is None or timeout > 0


def receive_any(*channels: Channel[Any], timeout: float | None = None) -> tuple[Channel[Any], Any]:
    """Receive from whichever channel has an item first; channels given earlier go first. Thread-safe.

    A checkpoint if it may wait. Channels that are closed and empty are passed over. If it raises, no item was taken.

    Args:
        channels: one or more.
        timeout: seconds, or None for no limit; 0 not to wait.

    Returns:
        The channel and its item.

    Raises:
        ChannelClosed: all of them are closed and empty.
        TimeoutError: none had an item in time.
        ValueError: no channel was given.
    """
    if not channels:
        raise ValueError("receive_any() needs at least one channel")
    deadline = None if timeout is None else now() + timeout
    left = timeout
    while True:
        if _may_wait(left):
            checkpoint()
        answer = _receive_one(channels, left)
        if answer is TIMED_OUT:
            raise TimeoutError(f"nothing was sent to any of {channels!r} within {timeout} seconds")
        channel, item = answer
        if item is not CLOSED:
            return channel, item
        # A channel that was closed meanwhile counts for nothing while others are open.
        left = None if deadline is None else max(0.0, deadline - now())


def _receive_one(channels: tuple[Channel[Any], ...], timeout: float | None) -> Any:
    waiter = waiter_here()
    ticket = Ticket(waiter)
    queued: list[tuple[Channel[Any], Ticket]] = []

    def leave_queues() -> None:
        for channel, named in queued:
            channel._receiving.withdraw(named)

    def give_up() -> bool:
        if not ticket.withdraw():
            return False
        leave_queues()
        return True

    try:
        answer = _queue_up(channels, ticket, queued)
        if answer is not None:
            return answer
        if not queued:
            raise ChannelClosed("all of the channels are closed and empty")
        if not _may_wait(timeout):
            return TIMED_OUT if give_up() else waiter.park_through()
        return waiter.park(give_up, timeout)
    finally:
        leave_queues()


def _queue_up(channels: tuple[Channel[Any], ...], ticket: Ticket, queued: list[tuple[Channel[Any], Ticket]]) -> Any:
    """Stand in the queues of the open channels; if one has an item, stop there and return the two."""
    for channel in channels:
        named = ticket.named(channel)
        queued.append((channel, named))
        with channel._changing:
            # Queue first and look then, so that nothing that a finalizer does in between is missed.
            channel._receiving.add(named)
            if channel._buffer or channel._sending:
                # Unless an earlier channel has been quicker in the meantime.
                if not ticket.withdraw():
                    return None
                items = channel._take()
                # Without an item the sender withdrew at the last moment: look at all of them again.
                return channel, items[0] if items else CLOSED
            if channel._closed and channel._receiving.withdraw(named):
                queued.pop()
    return None
