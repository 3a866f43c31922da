"""Wait until futures have ended: `wait` and `as_completed`, as those of `concurrent.futures`, by parking."""

from __future__ import annotations

import concurrent.futures
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION
from concurrent.futures._base import DoneAndNotDoneFutures
from math import inf
from typing import Any, TypeVar

from ._core.current import checkpoint
from ._core.delivery import deferred_delivery
from ._core.future import Future
from ._core.runtime import now
from ._core.wait_queue import WaitQueue, waiter_here

__all__ = ["as_completed", "wait"]

T = TypeVar("T")

AnyFuture = concurrent.futures.Future[T]


def wait(
    fs: AnyFuture[T] | Iterable[AnyFuture[T]], timeout: float | None = None, return_when: str = ALL_COMPLETED
) -> DoneAndNotDoneFutures[T]:
    """Wait for one or many futures, as `concurrent.futures.wait`; foreign ones may be among them.

    A checkpoint, unless the timeout is 0; thread-safe. A virtual thread parks; a plain OS thread blocks and stays one.

    Args:
        fs: a future or an iterable of futures.
        timeout: seconds, or None for no limit.
        return_when: `FIRST_COMPLETED`, `FIRST_EXCEPTION` or `ALL_COMPLETED` of `concurrent.futures`.

    Returns:
        A named tuple of two sets: `done`, ended or cancelled, and `not_done`.

    Raises:
        ValueError: `return_when` is something else.
    """
    if return_when not in (ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION):
        raise ValueError(f"return_when={return_when!r}: choose FIRST_COMPLETED, FIRST_EXCEPTION or ALL_COMPLETED")
    if timeout is None or timeout > 0:
        checkpoint()
    pending = set(_futures_in(fs))
    done: set[AnyFuture[T]] = set()
    watch = _Watch(_deadline_in(timeout))
    try:
        # Those that have ended come at once.
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
    """Yield each of the futures once, as they end; foreign ones may be among them. Thread-safe.

    Each step is a checkpoint, unless the timeout is 0. A virtual thread parks; a plain OS thread blocks and stays one.

    Args:
        fs: a future or an iterable of futures.
        timeout: seconds from this call, or None for no limit.

    Raises:
        TimeoutError: (from a step) some have not ended in time.
    """
    return _as_completed(dict.fromkeys(_futures_in(fs)), timeout, _deadline_in(timeout))


def _as_completed(pending: dict[AnyFuture[T], None], timeout: float | None, deadline: float) -> Iterator[AnyFuture[T]]:
    total = len(pending)
    watch = _Watch(deadline)
    ended: deque[AnyFuture[T]] = deque()
    try:
        watch.add(pending)
        while pending:
            if timeout is None or timeout > 0:
                checkpoint()
            ended = ended or watch.next_ended()
            if not ended:
                raise TimeoutError(f"{len(pending)} of {total} futures have not ended after {timeout} seconds")
            del pending[ended[0]]
            yield ended.popleft()
    finally:
        watch.close()


def _futures_in(fs: AnyFuture[T] | Iterable[AnyFuture[T]]) -> Iterable[AnyFuture[T]]:
    # Not by the class: those of Dask, for one, only look like futures.
    return [fs] if hasattr(fs, "add_done_callback") else fs  # type: ignore[list-item]  # seen by its method


def _deadline_in(timeout: float | None) -> float:
    return inf if timeout is None else now() + timeout


def _is_enough(ended: Iterable[AnyFuture[Any]], return_when: str) -> bool:
    if return_when == FIRST_EXCEPTION:
        return any(_has_failed(future) for future in ended)
    return return_when == FIRST_COMPLETED


def _has_failed(future: AnyFuture[Any]) -> bool:
    if isinstance(future, Future):
        # Looking is not taking: its group must still raise a failure that nobody asked for.
        return future._exception is not None
    return not future.cancelled() and future.exception() is not None


class _Watch:
    """Futures that one thread waits for, through callbacks in whatever thread they end in."""

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
        """Take those that have ended, after waiting for the first; none at the deadline."""
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
        # One may have ended before the waiter stood in the queue.
        if not self._ended or not self._waiting.withdraw(waiter):
            self._waiting.park(waiter, seconds)

    def close(self) -> None:
        """Take the callbacks back, so that many waits for one future do not pile up in it."""
        with deferred_delivery():
            for future in self._watched:
                _forget_callback(future, self._has_ended)
        self._watched.clear()


def _forget_callback(future: AnyFuture[Any], callback: Callable[[Any], object]) -> None:
    if future.done():
        # Its callbacks are being called right now, and its list of them is not ours to change.
        return
    remove = getattr(future, "remove_done_callback", None)
    if remove is not None:
        remove(callback)
    elif isinstance(future, concurrent.futures.Future):
        with future._condition:
            callbacks: list[Callable[[Any], object]] = getattr(future, "_done_callbacks", [])
            if future._state in ("PENDING", "RUNNING") and callback in callbacks:
                callbacks.remove(callback)
