"""Channels: pass items from senders to receivers until closed. Modelled on Go's channels and Trio's memory channels."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from .._core.arguments import checked_count, checked_timeout
from .._core.copies import refuse_copy
from .._core.current import check_here
from .._core.engine import TIMED_OUT, Section, State
from .._core.on_demand import ModuleOnDemand
from .._core.runtime import now
from .._core.wait_queue import Ticket, Waiter, WaitQueue, waiter_here
from ..errors import ChannelClosed

if TYPE_CHECKING:
    from . import statistics as snapshots
else:
    snapshots = ModuleOnDemand("vthreads._sync.statistics")

__all__ = ["Channel", "receive_any"]

T = TypeVar("T")


class _Closed:
    """Type of `CLOSED`, the value that unparks waiters when their channel is closed."""


CLOSED = _Closed()


class _Offer:
    """A waiting sender and its item. To unpark it, a receiver passes a function that accepts the item."""

    __slots__ = ("_item", "_waiter")

    def __init__(self, waiter: Waiter, item: Any) -> None:
        self._waiter = waiter
        self._item = item

    def _unpark(self, take: Callable[[Any], object] | _Closed) -> bool:
        if isinstance(take, _Closed):
            return self._waiter._unpark(take)
        if self._waiter.state is State.ENDED:
            # Its thread did not survive a fork. The item stays in the parent.
            return False
        take(self._item)
        return self._waiter._unpark(True)


class Channel(Generic[T]):
    """Passes items from any number of senders to any number of receivers, first in, first out.

    Iterating over a channel receives until it is closed and empty.

    Args:
        capacity: number of items it buffers before `send` waits; with 0, `send` waits until its item is received.

    Raises:
        TypeError: `capacity` is not a whole number.
        ValueError: `capacity` is negative.
    """

    def __init__(self, capacity: int = 0) -> None:
        self._capacity = checked_count(capacity, "capacity", 0)
        self._closed = False
        self._buffer: deque[T] = deque()
        # Reentrant: the garbage collector may run a finalizer that closes the channel while this thread holds it.
        self._changing = Section()
        self._sending = WaitQueue()
        self._receiving = WaitQueue()

    def __reduce__(self) -> NoReturn:
        refuse_copy(self)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<Channel {state} buffered={len(self._buffer)}/{self._capacity}>"

    def send(self, item: T, timeout: float | None = None) -> None:
        """Send `item`; wait for room or, without a buffer, for a receiver. Thread-safe.

        A checkpoint, unless the timeout is 0. If it raises, nothing was sent.

        Args:
            item: anything.
            timeout: seconds, or None for no limit; with 0 it never waits.

        Raises:
            ChannelClosed: the channel was closed, before or while waiting.
            TimeoutError: no receiver took the item in time.
        """
        seconds = checked_timeout(timeout)
        waits = _may_wait(seconds)
        if waits:
            check_here()
        with self._changing:
            if self._closed:
                raise ChannelClosed(f"{self!r} is closed, so the item was not sent")
            if self._receiving.unpark_one(item):
                return
            if self._has_room():
                self._buffer.append(item)
                return
            if not waits:
                raise TimeoutError(f"no thread is receiving from {self!r}, and its buffer has no room")
            waiter = waiter_here()
            offer = _Offer(waiter, item)
            self._sending.add(offer)
            missed = (self._receiving or self._has_room() or self._closed) and self._sending.withdraw(offer)
        if missed:
            # A finalizer received, closed or queued a receiver after the check and before this sender was queued.
            self.send(item, timeout)
            return
        answer = waiter._park(lambda: self._sending.withdraw(offer), seconds)
        if answer is TIMED_OUT:
            raise TimeoutError(f"no thread received from {self!r} within {timeout} seconds")
        if answer is CLOSED:
            raise ChannelClosed(f"{self!r} was closed before the item was received")

    def receive(self, timeout: float | None = None) -> T:
        """Receive the next item; wait for one. A checkpoint, unless the timeout is 0; thread-safe.

        If it raises, no item was taken.

        Args:
            timeout: seconds, or None for no limit; with 0 it never waits.

        Raises:
            ChannelClosed: the channel is closed and everything sent has been received.
            TimeoutError: no item was sent in time.
        """
        seconds = checked_timeout(timeout)
        waits = _may_wait(seconds)
        if waits:
            check_here()
        with self._changing:
            items = self._take()
            if items:
                return items[0]
            if self._closed:
                raise ChannelClosed(f"{self!r} is closed and empty")
            if not waits:
                raise TimeoutError(f"{self!r} holds no item")
            waiter = waiter_here()
            self._receiving.add(waiter)
            missed = (self._sending or self._buffer or self._closed) and self._receiving.withdraw(waiter)
        if missed:
            # A finalizer sent, closed or queued a sender after the check and before this receiver was queued.
            return self.receive(timeout)
        answer: Any = self._receiving.park(waiter, seconds)
        if answer is TIMED_OUT:
            raise TimeoutError(f"no item was sent to {self!r} within {timeout} seconds")
        if answer is CLOSED:
            raise ChannelClosed(f"{self!r} was closed while waiting for an item")
        return answer  # type: ignore[no-any-return]  # the item that a sender passed directly

    def _has_room(self) -> bool:
        return len(self._buffer) < self._capacity

    def _take(self) -> list[T]:
        """Take the next item and return it in a list; return an empty list if there is none."""
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
        """Close the channel: waiting and later sends raise `ChannelClosed`; receivers first get the buffered items.

        Idempotent; not a checkpoint; thread-safe.
        """
        with self._changing:
            self._closed = True
            self._sending.unpark_all(CLOSED)
            self._receiving.unpark_all(CLOSED)

    @property
    def closed(self) -> bool:
        """Whether the channel was closed. Its buffer may still hold items."""
        return self._closed

    def __enter__(self) -> Channel[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def statistics(self) -> snapshots.ChannelStatistics:
        """Return the current number of items and waiters. Not a checkpoint; thread-safe."""
        senders, receivers = len(self._sending), len(self._receiving)
        return snapshots.ChannelStatistics(len(self._buffer), senders + receivers, senders, receivers, self._closed)


def _may_wait(timeout: float | None) -> bool:
    return timeout is None or timeout > 0


def receive_any(*channels: Channel[T], timeout: float | None = None) -> tuple[Channel[T], T]:
    """Receive from the first channel that has an item; if several have one, earlier arguments win. Thread-safe.

    A checkpoint, unless the timeout is 0. Skips channels that are closed and empty. If it raises, no item was taken.

    Args:
        channels: one or more.
        timeout: seconds, or None for no limit; with 0 it never waits.

    Returns:
        The channel and the item.

    Raises:
        ChannelClosed: all channels are closed and empty.
        TimeoutError: no item was sent in time.
        TypeError: an argument is not a channel.
        ValueError: called without a channel.
    """
    if not channels:
        raise ValueError("receive_any() was called without a channel; pass at least one")
    for channel in channels:
        if not isinstance(channel, Channel):
            raise TypeError(f"receive_any() got {channel!r}, which is not a Channel; pass the channels one by one")
    left = checked_timeout(timeout)
    deadline = None if left is None else now() + left
    while True:
        if _may_wait(left):
            check_here()
        answer = _receive_one(channels, left)
        if answer is TIMED_OUT:
            raise TimeoutError(f"no item was sent to any of {channels!r} within {timeout} seconds")
        channel, item = answer
        if item is not CLOSED:
            return channel, item
        # The answer came from a channel that was closed during the wait. Retry: another channel may still be open.
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
            return TIMED_OUT if give_up() else waiter._park_through()
        return waiter._park(give_up, timeout)
    finally:
        leave_queues()


def _queue_up(channels: tuple[Channel[Any], ...], ticket: Ticket, queued: list[tuple[Channel[Any], Ticket]]) -> Any:
    """Join the queues of the open channels. If one has an item, stop there and return the channel and the item."""
    for channel in channels:
        named = ticket.named(channel)
        queued.append((channel, named))
        with channel._changing:
            # Join the queue first, then check: a finalizer that sends or closes in between finds the waiter.
            channel._receiving.add(named)
            if channel._buffer or channel._sending:
                # An earlier channel has already answered the ticket, so its item is the result.
                if not ticket.withdraw():
                    return None
                items = channel._take()
                # No item: the sender withdrew after the check. CLOSED makes the caller check all channels again.
                return channel, items[0] if items else CLOSED
            if channel._closed and channel._receiving.withdraw(named):
                queued.pop()
    return None
