"""The block that owns virtual threads: it ends after them, and raises their failures.

    NEW ──enter──> OPEN ──body left──> LEAVING ──last member ended──> EXITED

It also limits how many of its members run at once. The part of a group that needs no block is in `members`. This module
does not depend on how a thread is switched.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from math import inf
from types import TracebackType
from typing import Any, ClassVar, Literal, NoReturn, ParamSpec, TypeVar, get_args

from ..errors import GroupClosed, GroupFull
from .arguments import check_function, checked_count
from .cancel import CancelNode, CancelScope
from .current import running, started_here
from .dropped import warn_dropped
from .engine import compiled
from .exceptions import add_note, is_a, raise_as_it_is, set_attribute
from .future import Future
from .members import (
    FATAL,
    LEAVING,
    NEW,
    OPEN,
    Call,
    Members,
    OnFailure,
    failure_without_delivery,
    sites_here,
    summary_without_delivery,
)
from .placement import PlacedAtGrant
from .repeated import repeated_in
from .semaphore import Semaphore
from .starter import own_runtime
from .thread import VirtualThread

__all__ = ["ThreadGroup", "current_group"]

P = ParamSpec("P")
T = TypeVar("T")

numbers = count(1)


class _CurrentGroup:
    """`ThreadGroup.current`: an attribute of the class that is computed at each access."""

    # For type checkers a `ThreadGroup`, which it is inside the block and in its members. The background group has all
    # methods but those of the block, and no code enters a block by this name.
    def __get__(self, instance: object, owner: type) -> ThreadGroup:
        return current_group()  # type: ignore[return-value]  # see above


def current_group() -> Members:
    """Return the innermost group of the running code; outside any, the background group. Starts the runtime."""
    thread = started_here()
    node: CancelNode | None = thread._innermost
    while node is not None:
        if isinstance(node, CancelScope) and node._group is not None:
            group: Members = node._group
            return group
        node = node._parent
    background: Members = thread._scheduler.background
    return background


class ThreadGroup(Members):
    """A block that owns virtual threads: `with ThreadGroup() as g: g.spawn(fn)`.

    The block ends when all its threads have ended. The first failure cancels the others and the body, and the block
    raises it in an `ExceptionGroup`. Modelled on Trio's nurseries and Java's `StructuredTaskScope`.

    Args:
        name: shown in dumps and messages.
        max_concurrency: how many members run at once, as an `int`, or a `Semaphore` that several groups share. While
            the group is full, `spawn` parks (back-pressure), but the spawn of a member queues its child.
        max_pending: most children of members that may be queued; None: no limit.
        on_failure: "cancel": the first failure cancels all others; "continue": failures are independent, and the block
            raises those that no code has fetched; "report", for servers: the failure of a member is reported at once
            through `threading.excepthook`, with its spawn site, and is neither kept nor raised by the block. A failure
            of the body is raised as with "continue": after all members have ended. `KeyboardInterrupt` and `SystemExit`
            always cancel the group and are raised.
        errors: "group": an `ExceptionGroup` is raised, even for one failure; "first": the first failure itself, the
            others in its `suppressed` (a tuple) and as notes.
        cleanup_grace: seconds that blocking calls in the cleanup of cancelled members may take; None: like the scope
            around the group.
        placement: of the threads on the carriers of `run(carriers=N)`. "same": a thread runs on the carrier of its
            spawner, at once up to its first park, and code between two checkpoints needs no locks. "spread": it is
            queued on the least loaded carrier, and does not run before `spawn` returns; it runs at the same time as
            threads of other carriers, so data that they share needs locks, as with OS threads. Other carriers start
            threads that are queued on a busy one. Once it has started, a thread stays on its carrier.

    `len(group)` and iteration cover the members that have not ended, queued ones included.

    Attributes:
        current: (on the class) the innermost group of the running code.

    Entering makes a plain OS thread a carrier and is not a checkpoint; leaving is one.

    Raises:
        TypeError: an argument has another type, as in `ThreadGroup(8)`.
        ValueError: an argument is out of range.
    """

    current: ClassVar[_CurrentGroup] = _CurrentGroup()

    def __init__(
        self,
        name: str | None = None,
        *,
        max_concurrency: int | Semaphore | None = None,
        max_pending: int | None = None,
        on_failure: OnFailure = "cancel",
        errors: Literal["group", "first"] = "group",
        cleanup_grace: float | None = None,
        placement: Literal["same", "spread"] = "same",
    ) -> None:
        if name is not None and not isinstance(name, str):
            raise TypeError(f"ThreadGroup({name!r}): the first argument is a name; was max_concurrency={name!r} meant?")
        if max_concurrency is not None and not isinstance(max_concurrency, Semaphore):
            max_concurrency = Semaphore(checked_count(max_concurrency, "max_concurrency", 1))
        if on_failure not in get_args(OnFailure):
            raise ValueError(f'on_failure={on_failure!r}: choose "cancel", "continue" or "report"')
        if errors not in ("group", "first"):
            raise ValueError(f'errors={errors!r}: choose "group" or "first"')
        if placement not in ("same", "spread"):
            raise ValueError(f'placement={placement!r}: choose "same" or "spread"')
        super().__init__(
            name if name is not None else f"group-{next(numbers)}", CancelScope(cleanup_grace=cleanup_grace), on_failure
        )
        self._scope._group = self
        self._spreads = placement == "spread"
        self._errors = errors
        self._permits = max_concurrency
        self._max_pending = inf if max_pending is None else checked_count(max_pending, "max_pending", 0)
        # Members that wait for a permit, and members that hold one.
        self._queued: set[VirtualThread] = set()
        self._permitted: set[VirtualThread] = set()

    def __del__(self) -> None:
        # Without a phase, `__init__` has raised because of a wrong argument.
        if getattr(self, "_phase", None) is NEW:
            warn_dropped(self, "it ran nothing")

    # --- spawning, and the limit of running members

    @compiled
    def spawn(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Start a virtual thread that calls `fn(*args, **kwargs)`.

        It runs at once up to its first park; then the caller continues, before all others. It gets a copy of the
        caller's contextvars. Not a checkpoint unless the group is full. Thread-safe: if the caller is on another OS
        thread than the group's carrier, the child is queued there. With `placement="spread"` it is queued on the least
        loaded carrier of the run. Works as a decorator.

        Raises:
            TypeError: calling `fn` would have no effect: it is not callable, or a coroutine or generator function.
            GroupClosed: the group accepts no more threads.
            GroupFull: a member spawned, and `max_pending` children are queued already.
            Cancelled: the caller is inside this group, and the group is cancelled.
        """
        future = self._spawn(fn, args, kwargs, wait=True)
        assert future is not None
        return future

    @repeated_in("_core/compiled/members.pxi")
    def _spawn(
        self, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any], wait: bool
    ) -> Future[T] | None:
        permits = self._permits
        if permits is None:
            return super()._spawn(fn, args, kwargs, wait)
        check_function(fn, "spawn" if wait else "try_spawn")
        caller = own_runtime(running())
        self._refuse_if_over(caller)
        permitted = permits.acquire(blocking=False)
        if not permitted:
            if not wait:
                return None
            if not self._is_member(caller):
                permitted = permits.acquire()
        try:
            thread = self._admit_limited(caller, (fn, args, kwargs), permitted)
        except BaseException:
            # There is no thread whose end could release the permit.
            if permitted:
                permits.release()
            raise
        # Read it before the launch: the thread drops its reference when it ends, which may be at once.
        future: Future[T] = thread._future
        if permitted:
            self._launch(thread)
        else:
            self._queue(thread)
        return future

    def _admit_limited(self, caller: VirtualThread | None, call: Call, permitted: bool) -> VirtualThread:
        sites = sites_here(caller)
        with self._changing:
            # The group may have closed while the caller waited for a permit.
            self._refuse_if_over(caller)
            if not permitted and len(self._queued) >= self._max_pending:
                raise GroupFull(
                    f"{self!r} is full and {len(self._queued)} children of its members are queued already; "
                    "raise max_pending, or let the body spawn, which waits"
                )
            thread = self._add(caller, call, sites)
            (self._permitted if permitted else self._queued).add(thread)
        thread._attach_member(self._scope)
        return thread

    def _queue(self, thread: VirtualThread) -> None:
        """Queue `thread` for a permit; a grant starts it."""
        permits = self._permits
        assert permits is not None
        if self._spreads:
            PlacedAtGrant(thread, permits).queue()
            return
        if not thread._is_here():
            thread._scheduler.post(self._queue, thread)
            return
        thread._wait_unstarted(lambda: permits._withdraw(thread))
        if permits._take_or_queue(thread):
            thread._unpark()
        elif thread._affected_by is not None:
            thread._notice()

    def _dequeued(self, thread: VirtualThread, *, granted: bool) -> None:
        """Handle that a queued child begins to run, with a permit, or only to end (called in the child)."""
        with self._changing:
            self._queued.discard(thread)
            if granted:
                self._permitted.add(thread)

    def _take_slot(self, thread: VirtualThread) -> Callable[[], None] | None:
        with self._changing:
            if self._permits is None or thread not in self._permitted:
                return None
            self._permitted.discard(thread)
            return self._permits.release

    @repeated_in("_core/compiled/members.pxi")
    def _member_ended(self, thread: VirtualThread) -> None:
        """Handle the end of a member: release its permit before the block may end."""
        with self._changing:
            permitted = thread in self._permitted
            self._permitted.discard(thread)
        placement = thread._scheduler.placement
        if self._spreads and placement is not None:
            placement.thread_ended(thread)
        try:
            if permitted and self._permits is not None:
                self._permits.release()
        finally:
            super()._member_ended(thread)

    def _survive_fork(self) -> None:
        super()._survive_fork()
        self._queued.clear()
        self._permitted.clear()

    # --- the block

    def __enter__(self) -> ThreadGroup:
        body = started_here()
        if self._phase is not NEW:
            raise GroupClosed(f"{self!r} was entered before; a group is used once, so make a new one", self)
        self._enter(body)
        return self

    def _enter(self, body: VirtualThread) -> None:
        self._body = body
        self._scope._enter(body)
        self._phase = OPEN

    # The block ends early only if the program cancels the group. With a return type of "bool", type checkers assume
    # that the block may swallow any exception, and that names bound in it are unbound afterwards.
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        body = running()
        if body is None or body._innermost is not self._scope:
            self._misused(body)
        if self._phase is OPEN:
            self._phase = LEAVING
        failure = None if error is None else failure_without_delivery(error)
        if failure is not None:
            self._failed(failure, body, None)
            if self._refused(failure):
                why = summary_without_delivery(failure)
                self._scope._request_cancel(f"the body of group {self.name!r} failed: {why}", body)
        self._wait_for_members(body)
        self._disarm_grace()
        self._scope._leave()
        return self._conclude(body, error, failure)

    def _misused(self, body: VirtualThread | None) -> NoReturn:
        self.cancel(f"group {self.name!r} was left out of order")
        if body is not None and body is self._body:
            # No thread outlives the block of its group. That holds for a block that is left out of order too, so wait
            # before the error is raised.
            self._wait_for_members(body)
            self._disarm_grace()
        raise self._scope._misused(body, self)

    def _conclude(self, body: VirtualThread, error: BaseException | None, failure: BaseException | None) -> bool:
        """Raise the exceptions of the block; return the result of `__exit__`."""
        if self._failures:
            return self._raise_failures(error)
        if error is None:
            if self._some_were_taken:
                # The body has handled them. Break the cycles, which would keep its frames until a garbage collection.
                for future in self._ended.held():
                    future._forget_callers()
            # Leaving is a checkpoint: raise a cancellation of an enclosing scope that came meanwhile.
            body._check()
            return True
        if failure is None and self._scope._absorbs():
            self._scope.cancelled_caught = True
            return True
        return False

    def _raise_failures(self, error: BaseException | None) -> bool:
        failures = self._take_failures()
        fatal = next((failure for failure in failures if is_a(failure, FATAL)), None)
        if fatal is None and self._errors == "group":
            message = f"{len(failures)} failure{'s' if len(failures) > 1 else ''} in ThreadGroup {self.name!r}"
            raise BaseExceptionGroup(message, failures) from None
        chosen = failures[0] if fatal is None else fatal
        others = tuple(failure for failure in failures if failure is not chosen)
        for other in others:
            add_note(chosen, "also failed in ThreadGroup ", f"{self.name!r}: {summary_without_delivery(other)}")
        if fatal is None:
            set_attribute(chosen, "suppressed", others)
        if chosen is error:
            # It is already propagating. Raising it again would only extend its traceback.
            return False
        try:
            raise_as_it_is(chosen)
        finally:
            # Its traceback refers to this frame.
            del chosen, others, failures, fatal
