"""Map a function over items: lazily, in order, with a bounded window of virtual threads.

`map` has threads but no block, since its consumer may be anywhere; what keeps it structured is told at its owner,
below.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextvars import copy_context
from traceback import format_exception_only
from typing import Any, TypeVar
from weakref import WeakSet

from ._core.cancel import CancelNode, CancelScope
from ._core.current import checkpoint, on_carrier, running, started_here
from ._core.delivery import deferred_delivery
from ._core.engine import Scheduler
from ._core.future import Future
from ._core.group import Phase, ThreadGroup, current_group
from ._core.runtime import after_fork_hooks
from ._core.semaphore import Semaphore
from ._core.thread import VirtualThread
from ._core.wait_queue import WaitQueue, waiter_here
from .errors import GroupClosed

__all__ = ["map"]

T = TypeVar("T")

# How many items `map` has in hand when it is not told: enough to hide the latency of a network, and few enough for a
# server to bear.
DEFAULT_WINDOW = 32


def map(fn: Callable[..., T], *iterables: Iterable[Any], max_concurrency: int | None = None) -> Iterator[T]:
    """Call `fn` on the items of `iterables`, each in a virtual thread, and yield the results in order, lazily.

    Not a checkpoint, but each step is one; thread-safe. Starts the runtime. The first step begins the work: from then
    on a thread of its own takes items from `iterables` and starts calls, so that at most `max_concurrency` results are
    being made or wait to be taken. The iterables may be infinite; the shortest ends it, as with the built-in `map`.

    The threads are children of the scope and the group that `map` was called in, with the contextvars of that call;
    where the results are consumed is of no concern. They end with that group at the latest.

    A call that fails raises its exception at its place in the order and cancels those behind it; so does a failing
    iterable. Any exception of a step, `Cancelled` among them, closes the iterator.

    The iterator's `close()` cancels what is running and waits until it has ended; it is no checkpoint. An iterator that
    is dropped is closed by the garbage collector, which does not wait.

    Args:
        fn: called with one item of each iterable.
        max_concurrency: how many results are in hand at once; None: 32.

    Raises:
        TypeError: there is no iterable, or one of `iterables` is none.
        ValueError: `max_concurrency` is less than 1.
        GroupClosed: (from a step) the group or scope that `map` was called in has ended or was cancelled.
    """
    if not iterables:
        raise TypeError("map() needs at least one iterable")
    if max_concurrency is not None and max_concurrency < 1:
        raise ValueError(f"max_concurrency={max_concurrency}: map() makes at least 1 call at a time")
    source = zip(*iterables, strict=False)
    return _Map(_Items(started_here(), fn, source, max_concurrency or DEFAULT_WINDOW))


class _Map(Iterator[T]):
    """The iterator in the user's hands. Its threads do not refer to it, so dropping it is noticed."""

    def __init__(self, items: _Items) -> None:
        self._items = items
        self._closed = False

    def __repr__(self) -> str:
        return f"<{self._items.name}{' closed' if self._closed else ''}>"

    def __next__(self) -> T:
        if self._closed:
            raise StopIteration
        try:
            checkpoint()
            future = self._items.take()
            if future is None:
                raise StopIteration
            result: T = _result_of(future)
        except BaseException:
            self.close()
            raise
        self._items.taken()
        return result

    def close(self) -> None:
        """Cancel what is running and wait until it has ended. Not a checkpoint; thread-safe."""
        self._closed = True
        self._items.give_up("the iterator was closed")
        self._items.join()

    def __del__(self) -> None:
        if not self._closed:
            # A finalizer may run in the midst of anything; the cancellation is for later.
            self._items.home.post(self._items.give_up, "the iterator was dropped")


def _result_of(future: Future[T]) -> T:
    try:
        return future.result()
    except StopIteration as error:
        # It would look like the end of the iterator.
        raise RuntimeError("a call of map() raised StopIteration") from error


class _ItemsScope(CancelScope):
    """Moves on to the enclosing scope when the one that it hangs off is left."""

    __slots__ = ()

    def _outlive(self, parent: CancelNode) -> None:
        if parent.cancel_called:
            self._request_cancel(parent._cancel_reason, parent._cancel_source)
        self._parent = parent._parent
        if self._parent is not None:
            self._parent._children = self._parent._children or {}
            self._parent._children[self] = None
        self._spread()


class _Items(ThreadGroup):
    """The owner of the threads of one `map`: a group that has no block and is the guest of the group around.

    One thread feeds: it takes arguments from the source and starts a call for each, as long as there are slots. The
    scope hangs off the caller's, so cancellation comes down as to children of the caller. The host's block asks its
    guests to give up when no member is left that could consume, and ends after them.
    """

    def __init__(
        self, caller: VirtualThread, fn: Callable[..., Any], source: Iterator[tuple[Any, ...]], window: int
    ) -> None:
        super().__init__(f"map of {getattr(fn, '__qualname__', type(fn).__qualname__)}")
        self.home = caller.scheduler
        self._host = current_group()
        self._fn = fn
        self._source = source
        self._context = copy_context()
        self._slots = Semaphore(window)
        # In the order of the items. A result is taken from the left.
        self._window: deque[Future[Any]] = deque()
        self._arrived = WaitQueue()
        self._begun = False
        self._feeder: VirtualThread | None = None
        # The future of the feeder, once it has ended.
        self._fed: Future[Any] | None = None
        # Not `current` for the calls: what they spawn there belongs to the host, and is no item.
        self._scope = _ItemsScope()
        self._scope._children = {}
        self._scope._attach(caller.innermost)
        self._phase = Phase.OPEN
        self._host.host(self)
        _all_items.add(self)

    def _scheduler(self) -> Scheduler:
        return self.home

    # --- the consumer

    def take(self) -> Future[Any] | None:
        """Take the next call, which may not have ended yet; None at the end of the source. May park."""
        self._refuse_if_given_up()
        self._begin()
        while True:
            # In this order: the feeder fills the window before it ends.
            fed = self._fed
            if self._window:
                try:
                    return self._window.popleft()
                except IndexError:
                    # Another consumer was faster.
                    continue
            if fed is not None:
                fed.result()
                return None
            self._refuse_if_given_up()
            self._wait_for_more()

    def _refuse_if_given_up(self) -> None:
        why = self._scope._cancel_reason or self._why_over()
        if why is not None:
            raise GroupClosed(f"{self.name} yields no more: {why}", self._host)

    def _begin(self) -> None:
        with self._changing:
            if self._begun:
                return
            self._begun = True
        self._context.run(self.spawn, self._feed)

    def _wait_for_more(self) -> None:
        waiter = waiter_here()
        self._arrived.add(waiter)
        if not (self._window or self._fed) or not self._arrived.withdraw(waiter):
            self._arrived.park(waiter)

    def taken(self) -> None:
        """Have room for another call: a result is out of hand."""
        self._slots.release()

    # --- the feeder

    def _feed(self) -> None:
        self._feeder = running()
        while True:
            self._slots.acquire()
            try:
                arguments = next(self._source)
            except StopIteration:
                return
            self._window.append(self.spawn(self._fn, *arguments))
            self._arrived.unpark_all()

    # --- ends of the threads (called in the ending thread)

    def settle(self, thread: VirtualThread, value: Any, error: BaseException | None) -> None:
        """Keep the outcome for the consumer, who is told at its place."""
        future = thread.future
        super().settle(thread, value, error)
        # The feeder makes itself known before it starts a call; unknown, it has ended before it ran.
        if self._feeder in (None, thread):
            self._fed = future
            self._arrived.unpark_all()

    def _failed(self, error: BaseException, thread: VirtualThread, future: Future[Any] | None) -> None:
        """Cancel the feeder and the calls behind the one that failed; those before it are still wanted."""
        if thread is self._feeder:
            return
        # Not its repr: that is the user's code, and may fail.
        reason = f"a call before it in {self.name} failed: {format_exception_only(error)[0].strip()}"
        behind = False
        for member in list(self._members):
            if behind or member is self._feeder:
                member.cancel(reason)
            behind = behind or member is thread

    def left(self, thread: VirtualThread) -> None:
        """Leave the host once the last thread has ended and no more may come."""
        super().left(thread)
        # Nobody iterates over what has ended; the window holds what is wanted.
        self._ended.clear()
        self._leave_if_over()

    # --- the end

    def give_up(self, reason: str) -> None:
        """Cancel all and take no more; no waiting. Not a checkpoint; thread-safe."""
        self._scope.cancel(reason)
        self._arrived.unpark_all()
        self._leave_if_over()

    def _leave_if_over(self) -> None:
        with self._changing:
            if self._members or not self._scope.cancel_called or self._phase is Phase.EXITED:
                return
            self._phase = Phase.EXITED
        self._scope._detach()
        self._host.guest_left(self)

    def join(self) -> None:
        """Wait until all threads have ended, whatever is pending."""
        caller = running()
        if self._is_inside(caller) or (caller is None and on_carrier()):
            # A call that closes the iterator it is part of, or code inside the scheduler: neither can wait.
            return
        with deferred_delivery():
            while True:
                waiter = waiter_here()
                with self._changing:
                    if not self._members:
                        return
                    self._empty.add(waiter)
                self._empty.park(waiter)

    def survive_fork(self) -> None:
        """In the child of a fork the threads are not there."""
        super().survive_fork()
        self._scope._children = {}
        self._arrived.forget_all()
        self._closed = "its threads were not carried over by a fork"


_all_items: WeakSet[_Items] = WeakSet()


def _after_fork() -> None:
    for items in list(_all_items):
        items.survive_fork()


after_fork_hooks.append(_after_fork)
