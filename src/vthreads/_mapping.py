"""Map a function over items: lazily, in order, with a limited number of virtual threads.

`map` starts threads but has no block, because its consumer may be anywhere. `_Items` keeps that structured: it is a
group without a block that the group around `map` hosts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from typing import Any, Literal, TypeVar, overload
from weakref import WeakSet

from ._combinators import value_or_error
from ._core.arguments import check_function, checked_count
from ._core.cancel import CancelNode, CancelScope
from ._core.contexts import inherited_context
from ._core.current import check_here, on_carrier, running, started_here
from ._core.delivery import deferred_delivery
from ._core.dropped import warn_dropped
from ._core.engine import Scheduler
from ._core.exceptions import drop_frame, is_a, show, summary_of
from ._core.future import Future
from ._core.group import current_group
from ._core.members import Members, Phase
from ._core.participants import Participant, participate
from ._core.semaphore import Semaphore
from ._core.thread import VirtualThread
from ._core.wait_queue import WaitQueue, waiter_here
from .errors import Cancelled, GroupClosed

__all__ = ["map"]

A = TypeVar("A")
B = TypeVar("B")
T = TypeVar("T")

# Default for the number of results in progress: enough to hide network latency, and few enough for a server.
DEFAULT_WINDOW = 32


@overload
def map(
    fn: Callable[[A], T],
    a: Iterable[A],
    /,
    *,
    max_concurrency: int | None = None,
    return_exceptions: Literal[False] = False,
) -> Mapped[T]: ...


@overload
def map(
    fn: Callable[[A, B], T],
    a: Iterable[A],
    b: Iterable[B],
    /,
    *,
    max_concurrency: int | None = None,
    return_exceptions: Literal[False] = False,
) -> Mapped[T]: ...


@overload
def map(
    fn: Callable[[A], T], a: Iterable[A], /, *, max_concurrency: int | None = None, return_exceptions: bool
) -> Mapped[T | Exception]: ...


@overload
def map(
    fn: Callable[[A, B], T],
    a: Iterable[A],
    b: Iterable[B],
    /,
    *,
    max_concurrency: int | None = None,
    return_exceptions: bool,
) -> Mapped[T | Exception]: ...


@overload
def map(
    fn: Callable[..., T],
    a: Iterable[Any],
    b: Iterable[Any],
    c: Iterable[Any],
    /,
    *more: Iterable[Any],
    max_concurrency: int | None = None,
    return_exceptions: Literal[False] = False,
) -> Mapped[T]: ...


@overload
def map(
    fn: Callable[..., T],
    a: Iterable[Any],
    b: Iterable[Any],
    c: Iterable[Any],
    /,
    *more: Iterable[Any],
    max_concurrency: int | None = None,
    return_exceptions: bool,
) -> Mapped[T | Exception]: ...


def map(
    fn: Callable[..., Any],
    /,
    *iterables: Iterable[Any],
    max_concurrency: int | None = None,
    return_exceptions: bool = False,
) -> Mapped[Any]:
    """Call `fn` on the items of `iterables`, each in a virtual thread, and yield the results in order, lazily.

    Not a checkpoint, but each step is one; thread-safe. Starts the runtime. The first step starts the work: from then
    on a separate thread takes items from `iterables` and starts calls, so that at most `max_concurrency` results are
    in progress or waiting to be consumed. The iterables may be infinite; the shortest one ends the iteration, as with
    the built-in `map`.

    The threads are children of the scope and the group in which `map` was called, with the contextvars of that call,
    wherever the results are consumed. They end with that group at the latest.

    A call that fails raises its exception at its place in the order and cancels the calls behind it; so does a failing
    iterable. Any exception of a step, including `Cancelled`, closes the iterator.

    The iterator's `close()` cancels the running calls and waits until they have ended; it is not a checkpoint. The
    garbage collector closes an iterator that is dropped, without waiting. One that is dropped before its first step has
    called nothing, and is reported by a `ResourceWarning`.

    Args:
        fn: called with one item of each iterable.
        max_concurrency: most results in progress at the same time; None: 32.
        return_exceptions: yield an `Exception` that a call raised at its place in the order, and a
            `concurrent.futures.CancelledError` for a call that was cancelled individually; the others continue. A
            failing iterable still ends the iterator.

    Raises:
        TypeError: called without an iterable, an argument is not iterable, or calling `fn` would have no effect.
        ValueError: `max_concurrency` is less than 1.
        GroupClosed: (from a step) the group or scope in which `map` was called has ended or was cancelled.
    """
    if not iterables:
        raise TypeError("map() was called without an iterable; pass at least one")
    check_function(fn, "map")
    window = DEFAULT_WINDOW if max_concurrency is None else checked_count(max_concurrency, "max_concurrency", 1)
    source = zip(*iterables, strict=False)
    return Mapped(_Items(started_here(), fn, source, window, return_exceptions))


class Mapped(Iterator[T]):
    """The iterator that `map` returns. Its threads do not refer to it, so that it is finalized when it is dropped."""

    def __init__(self, items: _Items) -> None:
        self._items = items
        self._closed = False

    def __repr__(self) -> str:
        return f"<{self._items.name}{' closed' if self._closed else ''}>"

    def __next__(self) -> T:
        if self._closed:
            raise StopIteration
        try:
            check_here()
            future = self._items.take()
            if future is None:
                raise StopIteration
            result: T = self._items.result_of(future)
        except BaseException:
            # Break the cycle, as in `result_of`.
            future = None
            self.close()
            raise
        self._items.taken()
        return result

    def close(self) -> None:
        """Cancel the running calls and wait until they have ended. Not a checkpoint; thread-safe."""
        self._closed = True
        self._items.take_source()
        self._items.give_up("the iterator was closed")
        self._items.join()

    def __del__(self) -> None:
        if not self._closed:
            # Unless the feeder has it, drop the source here, as the built-in `map` does: a generator in it may wait
            # when it is closed, which it could not inside the scheduler.
            self._items.take_source()
            # A finalizer may run inside any code, so post the cancellation instead of performing it here.
            self._items.home.post(self._items.give_up, "the iterator was dropped")
            if self._items.is_untouched():
                remedy = "use it in a loop, or call list() with it"
                warn_dropped(self, "it called nothing", when="before its first step", remedy=remedy)


def _raise_first(errors: list[BaseException]) -> None:
    """Raise the exception in the list and remove it, because its traceback refers to frames that refer to the list."""
    try:
        error = errors.pop()
    except IndexError:
        return
    try:
        raise error
    finally:
        # Break the cycle of traceback and frame.
        del error


class _ItemsScope(CancelScope):
    """A scope that moves to the parent scope when its own parent is left."""

    __slots__ = ()

    def __del__(self) -> None:
        """Do nothing: this scope has no block that could have been forgotten."""

    def _outlive(self, parent: CancelNode) -> None:
        if parent._cancel_called:
            self._request_cancel(parent._cancel_reason, parent._cancel_source)
        self._parent = parent._parent
        if self._parent is not None:
            self._parent._children = self._parent._children or {}
            self._parent._children[self] = None
        self._spread()


class _Items(Members):
    """The owner of the threads of one `map`: a group without a block, which the surrounding group hosts as a guest.

    One thread, the feeder, acquires a permit for each call, takes its arguments from the source, and starts it. The
    scope is a child of the scope of the caller, so cancellation arrives as in children of the caller. The block of the
    host closes its guests when no member is left that could consume results, and ends after them.
    """

    def __init__(
        self,
        caller: VirtualThread,
        fn: Callable[..., Any],
        source: Iterator[tuple[Any, ...]],
        window: int,
        return_exceptions: bool,
    ) -> None:
        # Not `current` for the calls: threads that they spawn belong to the host, and are not items of this map.
        super().__init__(f"map of {getattr(fn, '__qualname__', type(fn).__qualname__)}", _ItemsScope(), "cancel")
        self.home: Scheduler = caller._scheduler
        self._host = current_group()
        self._fn = fn
        self._source = source
        self._return_exceptions = return_exceptions
        self._context = inherited_context()
        self._permits = Semaphore(window)
        # Futures in the order of the items. The consumer takes them from the left.
        self._window: deque[Future[Any]] = deque()
        self._arrived = WaitQueue()
        self._begun = False
        # The ident of the feeder; and, once it has ended, the exception to raise once at the end of the source. Storing
        # the thread or a future would create a cycle through this object.
        self._feeder: int | None = None
        self._fed: list[BaseException] | None = None
        self._scope._attach(caller._innermost)
        self._phase = Phase.OPEN
        self._host._take_guest(self)
        _all_items.add(self)

    def _scheduler(self) -> Scheduler:
        return self.home

    # --- the consumer

    def take(self) -> Future[Any] | None:
        """Return the next call, which may not have ended yet; None at the end of the source. May park."""
        self._refuse_if_given_up()
        self._begin()
        while True:
            # Read `_fed` first: the feeder fills the window before it ends, so an empty window is then final.
            fed = self._fed
            if self._window:
                try:
                    return self._window.popleft()
                except IndexError:
                    # Another consumer took the last future.
                    continue
            if fed is not None:
                _raise_first(fed)
                return None
            self._refuse_if_given_up()
            self._wait_for_more()

    def is_untouched(self) -> bool:
        """Whether the first step could still begin the work."""
        return not self._begun and self._why_over() is None

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
        if not (self._window or self._fed is not None) or not self._arrived.withdraw(waiter):
            self._arrived.park(waiter)

    def result_of(self, future: Future[Any]) -> Any:
        """Wait for a call that was taken; return its result for the consumer, or raise its exception."""
        try:
            return future.result()
        except CancelledError as error:
            # A call that was cancelled together with the others has no outcome.
            if self._return_exceptions and self._scope._affected_by is None:
                return error
            raise
        except StopIteration as error:
            # A StopIteration would look like the end of the iterator.
            raise RuntimeError(
                "a call of map() raised StopIteration, which would end the iterator; catch it in the function"
            ) from error
        finally:
            # A failure refers to this frame. Break the cycle, so that it is freed without the garbage collector.
            del future

    def taken(self) -> None:
        """Release the permit of a call, because a result has been consumed."""
        self._permits.release()

    # --- the feeder

    def take_source(self) -> Iterator[tuple[Any, ...]]:
        """Return the iterator over the arguments, and drop the reference to it."""
        source, self._source = self._source, iter(())
        return source

    def _feed(self) -> None:
        self._feeder = started_here()._thread_ident
        # Only this frame refers to the source from here on. So if this thread is cancelled, a generator in the source
        # is closed as the frame unwinds, where its cleanup may block.
        source = self.take_source()
        while True:
            self._permits.acquire()
            try:
                arguments = next(source)
            except StopIteration:
                return
            if self._return_exceptions:
                future: Future[Any] = self.spawn(value_or_error, self._fn, *arguments)
            else:
                future = self.spawn(self._fn, *arguments)
            self._window.append(future)
            self._arrived.unpark_all()

    # --- ends of threads (called in the ending thread)

    def _settle(self, thread: VirtualThread, value: Any, error: BaseException | None) -> None:
        """Store the outcome for the consumer, which gets it at its place in the order."""
        # The feeder stores its ident before it starts a call. If there is none, the feeder ended before it ran.
        is_feeder = self._feeder in (None, thread._thread_ident)
        if is_feeder and error is not None:
            # Its frame refers to this object.
            drop_frame(error)
        super()._settle(thread, value, error)
        if is_feeder:
            cancelled = error is not None and is_a(error, Cancelled)
            failure = CancelledError(f"{thread!r} was cancelled") if cancelled else error
            self._fed = [] if failure is None else [failure]
            self._arrived.unpark_all()

    def _failed(self, error: BaseException, thread: VirtualThread, future: Future[Any] | None) -> None:
        """Cancel the feeder and the calls behind the one that failed; results of those before it are still wanted."""
        if thread._thread_ident == self._feeder:
            return
        reason = f"a call before it in {self.name} failed: {summary_of(error)}"
        behind = False
        for member in list(self._members):
            if behind or member._thread_ident == self._feeder:
                member.cancel(reason)
            behind = behind or member is thread

    def _failed_at_end(self, thread: VirtualThread, error: BaseException) -> None:
        """Report an error that the consumer does not get, because the consumer gets outcomes of calls only."""
        show(error)

    def _member_ended(self, thread: VirtualThread) -> None:
        """Leave the host after the last thread, if no more can come."""
        super()._member_ended(thread)
        self._leave_if_over()

    # --- the end of the map

    def give_up(self, reason: str) -> None:
        """Cancel all threads and start no more, without waiting. Not a checkpoint; thread-safe."""
        self._scope.cancel(reason)
        self._arrived.unpark_all()
        self._leave_if_over()

    def _leave_if_over(self) -> None:
        with self._changing:
            if self._members or not self._scope._cancel_called or self._phase is Phase.EXITED:
                return
            self._phase = Phase.EXITED
        self._scope._detach()
        self._scope._break_cycles()
        # The futures refer to this object through their threads.
        self._window.clear()
        self._host._guest_left(self)

    def join(self) -> None:
        """Wait until all threads have ended, ignoring cancellation."""
        caller = running()
        if self._is_inside(caller) or (caller is None and on_carrier()):
            # The caller is a call of this map that closes its own iterator, or code inside the scheduler: neither may
            # wait.
            return
        with deferred_delivery():
            while True:
                waiter = waiter_here()
                with self._changing:
                    if not self._members:
                        return
                    self._empty.add(waiter)
                    # The last thread may have ended after the check, while a finalizer ran. So check again.
                    if not self._members and self._empty.withdraw(waiter):
                        return
                self._empty.park(waiter)

    def _survive_fork(self) -> None:
        """Reset in the child of a fork, where the threads do not exist."""
        super()._survive_fork()
        self._scope._children = {}
        self._arrived.forget_all()
        self._closed = "the process was forked, and its threads exist only in the parent"


_all_items: WeakSet[_Items] = WeakSet()


def _after_fork() -> None:
    for items in list(_all_items):
        items._survive_fork()


participate(__name__, Participant(forked=_after_fork))
