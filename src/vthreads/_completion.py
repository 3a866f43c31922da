"""Wait until futures have ended: `wait` and `as_completed` like those of `concurrent.futures`, but they park."""

from __future__ import annotations

import concurrent.futures
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION
from concurrent.futures._base import DoneAndNotDoneFutures
from math import inf
from typing import Any, Literal, TypeVar

from ._core.arguments import checked_seconds
from ._core.current import check_here
from ._core.delivery import deferred_delivery
from ._core.future import Future
from ._core.runtime import now
from ._core.wait_queue import WaitQueue, waiter_here

__all__ = ["as_completed", "wait"]

T = TypeVar("T")

AnyFuture = concurrent.futures.Future[T]


def wait(
    fs: AnyFuture[T] | Iterable[AnyFuture[T]],
    timeout: float | None = None,
    return_when: Literal["FIRST_COMPLETED", "FIRST_EXCEPTION", "ALL_COMPLETED"] = "ALL_COMPLETED",
) -> DoneAndNotDoneFutures[T]:
    """Wait for one or many futures, like `concurrent.futures.wait`; accepts foreign futures too.

    A checkpoint, unless the timeout is 0; thread-safe. Parks a virtual thread, blocks a plain OS thread.

    Args:
        fs: a future or an iterable of futures.
        timeout: seconds, or None for no limit.
        return_when: `FIRST_COMPLETED`, `FIRST_EXCEPTION` or `ALL_COMPLETED` of `concurrent.futures`.

    Returns:
        A named tuple of two sets: `done` (ended or cancelled) and `not_done`.

    Raises:
        TypeError: one of `fs` is not a future.
        ValueError: `return_when` has another value.
    """
    if return_when not in (ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION):
        raise ValueError(f"return_when={return_when!r}: pass FIRST_COMPLETED, FIRST_EXCEPTION or ALL_COMPLETED")
    seconds = checked_seconds(timeout, "timeout")
    if seconds > 0:
        check_here()
    pending = set(_futures_in(fs, "wait"))
    done: set[AnyFuture[T]] = set()
    watch = _Watch(now() + seconds)
    try:
        # Futures that have ended already are reported at once.
        watch.add(pending)
        while pending:
            ended = watch.next_ended()
            done.update(ended)
            pending.difference_update(ended)
            if not ended or _is_enough(ended, return_when):
                break
    finally:
        watch.close()
    return DoneAndNotDoneFutures(done, pending)


def as_completed(fs: AnyFuture[T] | Iterable[AnyFuture[T]], timeout: float | None = None) -> Iterator[AnyFuture[T]]:
    """Yield each future once, in the order in which they end; accepts foreign futures too. Thread-safe.

    Futures that have ended before the first step come first, in the order of `fs`.

    Each step is a checkpoint, unless the timeout is 0. Parks a virtual thread, blocks a plain OS thread.

    Args:
        fs: a future or an iterable of futures.
        timeout: seconds from this call, or None for no limit.

    Raises:
        TimeoutError: (from a step) some futures have not ended in time.
        TypeError: one of `fs` is not a future.
    """
    seconds = checked_seconds(timeout, "timeout")
    return _as_completed(dict.fromkeys(_futures_in(fs, "as_completed")), seconds, now() + seconds)


def _as_completed(pending: dict[AnyFuture[T], None], timeout: float, deadline: float) -> Iterator[AnyFuture[T]]:
    total = len(pending)
    watch = _Watch(deadline)
    ended: deque[AnyFuture[T]] = deque()
    try:
        watch.add(pending)
        while pending:
            if timeout > 0:
                check_here()
            ended = ended or watch.next_ended()
            if not ended:
                raise TimeoutError(f"{len(pending)} of {total} futures have not ended after {timeout:g} seconds")
            del pending[ended[0]]
            yield ended.popleft()
    finally:
        watch.close()


def _futures_in(fs: AnyFuture[T] | Iterable[AnyFuture[T]], call: str) -> list[AnyFuture[T]]:
    """Return the futures in the argument of `call`; raise TypeError for anything else."""
    # Do not check the class: the futures of Dask, for example, only have the same methods.
    is_one = hasattr(fs, "add_done_callback") or not isinstance(fs, Iterable)
    given: list[Any] = [fs] if is_one else list(fs)  # type: ignore[arg-type]  # recognized by its method
    for future in given:
        if not hasattr(future, "add_done_callback"):
            raise TypeError(f"{call}() got {future!r}, which is not a future: give what spawn() or submit() returned")
    return given


def _is_enough(ended: Iterable[AnyFuture[Any]], return_when: str) -> bool:
    if return_when == FIRST_EXCEPTION:
        return any(_has_failed(future) for future in ended)
    return return_when == FIRST_COMPLETED


def _has_failed(future: AnyFuture[Any]) -> bool:
    if isinstance(future, Future):
        # Read the failure without marking it as taken: its group must still raise a failure that was not fetched.
        return future._exception is not None
    return not future.cancelled() and future.exception() is not None


class _Watch:
    """The futures that a thread waits for. Callbacks report their ends, in the threads in which they end."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._watched: dict[AnyFuture[Any], None] = {}
        self._ended: deque[AnyFuture[Any]] = deque()
        self._waiting = WaitQueue()

    def add(self, futures: Iterable[AnyFuture[Any]]) -> None:
        for future in futures:
            self._watched[future] = None
            future.add_done_callback(self._has_ended)

    def _has_ended(self, future: AnyFuture[Any]) -> None:
        self._ended.append(future)
        self._waiting.unpark_all()

    def next_ended(self) -> deque[AnyFuture[Any]]:
        """Return the futures that have ended, after waiting for the first; none at the deadline."""
        if not self._ended:
            self._wait()
        ended: deque[AnyFuture[Any]] = deque()
        while self._ended:
            future = self._ended.popleft()
            del self._watched[future]
            ended.append(future)
        return ended

    def _wait(self) -> None:
        seconds = None if self._deadline == inf else self._deadline - now()
        if seconds is not None and seconds <= 0:
            return
        waiter = waiter_here()
        self._waiting.add(waiter)
        # A future may have ended before this waiter was queued, so check again.
        if not self._ended or not self._waiting.withdraw(waiter):
            self._waiting.park(waiter, seconds)

    def close(self) -> None:
        """Remove the callbacks, so that many waits for the same future do not pile up in it."""
        with deferred_delivery():
            for future in self._watched:
                _forget_callback(future, self._has_ended)
        self._watched.clear()


def _forget_callback(future: AnyFuture[Any], callback: Callable[[Any], object]) -> None:
    if future.done():
        # The future may be calling its callbacks right now, so leave the list alone.
        return
    remove = getattr(future, "remove_done_callback", None)
    if remove is not None:
        remove(callback)
    elif isinstance(future, concurrent.futures.Future):
        with future._condition:
            callbacks: list[Callable[[Any], object]] = getattr(future, "_done_callbacks", [])
            if future._state in ("PENDING", "RUNNING") and callback in callbacks:
                callbacks.remove(callback)
