"""Members of a group that run in an executor of `concurrent.futures`. A virtual thread waits for each call.

    submitted ──cancel() of the foreign future──> cancelled
        └──────────ended within the grace───────> ended       (the outcome of the member)
        └──────────the grace is over────────────> abandoned ──> ended, and logged if it has failed

The thread is the member: a failure of the call is its failure. It holds the slot of its group as long as the call runs;
an abandoned call keeps the slot. This module does not depend on groups, or on the kind of the executor.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import CancelledError, Executor, Future
from typing import Any, Protocol

from ..errors import Cancelled
from .current import running
from .delivery import deferred_delivery
from .exceptions import raise_as_it_is, without_cancelled
from .participants import Participant, participate
from .replaced import latest
from .wait_queue import WaitQueue, waiter_here

__all__ = ["SubmittedCall", "submitted_calls"]

logger = logging.getLogger("vthreads")


class HoldsSlots(Protocol):
    """The part of a group that an abandoned call uses."""

    def _take_slot(self, thread: Any) -> Callable[[], None] | None:
        """Keep the slot of `thread` beyond its end; return the function that releases it. None: it has no slot."""


class SubmittedCall:
    """A call in an executor, and the virtual thread that waits for it.

    Args:
        executor: any object with the method `submit` of `concurrent.futures.Executor`.
        fn, arguments, keywords: the function and its arguments.
    """

    kind = "executor"

    def __init__(
        self, executor: Executor, fn: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> None:
        if not callable(getattr(executor, "submit", None)):
            raise TypeError(f"submit() got {executor!r}, which has no method submit(); pass the executor first")
        if not callable(fn):
            raise TypeError(f"submit() got {fn!r}, which cannot be called; pass a function and its arguments")
        self.function = latest(fn)
        self.since = 0.0
        self.abandoned = False
        self._submit: Callable[[], Future[Any]] | None = lambda: executor.submit(self.function, *arguments, **keywords)
        # Workers on virtual threads unpark the waiter only if they can run themselves, so they exclude no deadlock.
        self._is_outside = not _runs_here(executor)
        self._never_blocks = _is_standard(executor)
        self._is_over = False
        # The function that releases the slot of an abandoned call. A list: only one OS thread can pop it.
        self._slots: list[Callable[[], None] | None] = []
        self._waiting = WaitQueue()

    # --- in the member

    def run(self) -> Any:
        """Submit the call and wait for it; return its value or raise its exception."""
        thread = running()
        assert thread is not None
        assert self._submit is not None
        scheduler = thread._scheduler
        # The executor holds the arguments from now on. Drop them here, because they may be large.
        submit, self._submit = self._submit, None
        if self._never_blocks:
            # A cancellation inside would lose a call that has begun.
            with deferred_delivery():
                future = submit()
        else:
            future = submit()
        del submit
        self.since = scheduler.clock.now()
        _under_way[self] = None
        # Calls `_ended` at once if the call has ended already. The locks of the future may be checkpoints.
        with deferred_delivery():
            future.add_done_callback(self._ended)
        scheduler.outside += self._is_outside
        try:
            self._wait_for(future)
        finally:
            scheduler.outside -= self._is_outside
        with deferred_delivery():
            return _outcome_of(future)

    def _wait_for(self, future: Future[Any]) -> None:
        try:
            self._park()
        except Cancelled:
            if self._is_over:
                # The call has ended on another OS thread, just before the cancellation: return its outcome, as if the
                # wait had ended by that.
                return
            if _has_cancelled(future):
                raise
            try:
                # A blocking call in a cleanup: it raises again when the grace is over, or at an interrupt.
                self._park()
            except BaseException:
                # The call goes on without a member that waits for it.
                self._abandon(future)
                raise
        except BaseException:
            # An interrupt is raised at once. If the call has begun, it goes on without the member.
            if not _has_cancelled(future):
                self._abandon(future)
            raise

    def _park(self) -> None:
        waiter = waiter_here()
        self._waiting.add(waiter)
        # The call may have ended on another OS thread before the waiter was queued. So check again.
        if not self._is_over or not self._waiting.withdraw(waiter):
            self._waiting.park(waiter)

    def _abandon(self, future: Future[Any]) -> None:
        thread = running()
        assert thread is not None
        group: HoldsSlots = thread.group
        self._slots.append(group._take_slot(thread))
        self.abandoned = True
        if self._is_over:
            # It has ended meanwhile, on another OS thread, which may have checked too early.
            self._drop(future)

    # --- in the thread that ends the call, which may be any OS thread

    def _ended(self, future: Future[Any]) -> None:
        _under_way.pop(self, None)
        self._is_over = True
        if self.abandoned:
            self._drop(future)
        self._waiting.unpark_all()

    def _drop(self, future: Future[Any]) -> None:
        """Handle the end of an abandoned call, once."""
        try:
            release = self._slots.pop()
        except IndexError:
            return
        if release is not None:
            release()
        if not future.cancelled() and (error := future.exception(0)) is not None:
            logger.info("an abandoned call of %r failed", self.function, exc_info=error)


def _runs_here(executor: Executor) -> bool:
    # `type` instead of `isinstance`: the import of the pool of threads would cost each program its time.
    return any(
        (kind.__module__, kind.__qualname__) == ("concurrent.futures.thread", "ThreadPoolExecutor")
        for kind in type(executor).__mro__
    )


def _is_standard(executor: Executor) -> bool:
    """Return whether `submit` of `executor` waits for nothing but its own locks. That of other executors may wait."""
    module = getattr(type(executor).submit, "__module__", None) or ""
    return module.partition(".")[0] in ("concurrent", "distributed", "loky")


def _has_cancelled(future: Future[Any]) -> bool:
    """Cancel the call as far as its executor can; return whether it has ended by that."""
    try:
        return future.cancel()
    except Exception:
        # The cancellation must reach the member whatever the executor does.
        logger.exception("%r could not be cancelled", future)
        return False


def _outcome_of(future: Future[Any]) -> Any:
    if future.cancelled():
        # By other code, or by the executor: not a failure of the member.
        raise Cancelled("the future of its executor was cancelled")
    error = future.exception(0)
    if error is None:
        return future.result(0)
    try:
        if without_cancelled(error) is None:
            # It belongs to a runtime inside the call. No scope of the member would catch it, so convert it.
            raise CancelledError(f"the submitted call was cancelled in its executor: {error}") from error
        raise_as_it_is(error)
    finally:
        # The exception refers to this frame. Break the cycle, so that it is freed without the garbage collector.
        del error, future


# The calls that have begun in an executor and have not ended, oldest first.
_under_way: dict[SubmittedCall, None] = {}


def submitted_calls() -> list[SubmittedCall]:
    """Return the calls that executors have not ended, oldest first, abandoned ones too. Thread-safe."""
    return list(_under_way)


# In the child of a fork the threads that wait for them do not exist.
participate(__name__, Participant(forked=_under_way.clear))
