"""The virtual threads of an owner, below one cancel scope: the common part of groups with and without a block.

    NEW ──> OPEN ──> LEAVING ──last member ended──> EXITED

While open or leaving, it accepts new threads unless it is cancelled, failed or closed. A member ends in two steps: it
sets its future, and then it leaves. This module does not depend on blocks, or on limits of running members.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Executor
from contextvars import Context
from enum import Enum
from functools import partial
from math import inf
from typing import Any, Literal, NoReturn, ParamSpec, TypeVar
from weakref import WeakSet

from ..errors import GroupClosed
from .arguments import check_function, checked_seconds
from .cancel import CancelNode, CancelScope
from .completions import Completions, EndedFutures
from .contexts import inherited_context
from .copies import refuse_copy
from .current import running
from .delivery import deferred_delivery
from .engine import Scheduler, Section, compiled
from .engine.timers import Timer
from .exceptions import is_a, report, summary_of, without_cancelled
from .future import CANCELLED, FINISHED, Future
from .participants import participants
from .placement import place
from .repeated import repeated_in
from .spawn_site import LONGEST_CHAIN, SpawnSite, caller_site
from .starter import own_runtime
from .submitted import SubmittedCall
from .thread import VirtualThread
from .wait_queue import WaitQueue, waiter_here

__all__ = [
    "FATAL",
    "Call",
    "Members",
    "OnFailure",
    "Phase",
    "failure_without_delivery",
    "sites_here",
    "summary_without_delivery",
]

P = ParamSpec("P")
T = TypeVar("T")

OnFailure = Literal["cancel", "continue", "report"]
Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]

# Raised without a group, whatever else failed. Closing a generator inside the block requires a plain GeneratorExit.
FATAL = (KeyboardInterrupt, SystemExit, GeneratorExit)


class Phase(Enum):
    """The phases of a group; see the diagram in the module's docstring."""

    NEW = "new"
    OPEN = "open"
    LEAVING = "leaving"
    EXITED = "exited"


# As names of this module, because reading an attribute of an enum class is slow.
NEW, OPEN, LEAVING, EXITED = Phase


def failure_without_delivery(error: BaseException) -> BaseException | None:
    """Call `without_cancelled` without delivering a cancellation or an interrupt meanwhile."""
    # An exception group of the program may run its code, as below.
    with deferred_delivery():
        return without_cancelled(error)


def summary_without_delivery(error: BaseException) -> str:
    """Call `summary_of` without delivering a cancellation or an interrupt meanwhile."""
    # The message may be computed by user code (a lazy translation reads files). A cancellation raised there would leave
    # the block before its members have ended, or replace their failures.
    with deferred_delivery():
        return summary_of(error)


@compiled
def sites_here(caller: VirtualThread | None) -> tuple[SpawnSite, ...]:
    """Return where the running code spawns, followed by where `caller` was spawned."""
    site = caller_site()
    inherited = () if caller is None else caller._sites[: LONGEST_CHAIN - 1]
    return inherited if site is None else (site, *inherited)


@compiled
class MemberFields:
    """The fields that a spawn and the end of a member use. Compiled code reads them by their places in memory."""

    __slots__ = (
        "_body",
        "_changing",
        "_closed",
        "_empty",
        "_ended",
        "_home",
        "_listeners",
        "_members",
        "_permits",
        "_phase",
        "_scope",
        "_spreads",
    )


class Members(MemberFields):
    """The threads of an owner.

    Args:
        name: shown in dumps and messages.
        scope: the parent scope of the members, which cancels them.
        on_failure: as for `ThreadGroup`.
    """

    # A subclass with a limit of running members may queue members; without one, none is queued.
    _queued: Collection[VirtualThread] = ()
    # The phase after the last member.
    _phase_when_empty = EXITED

    def __init__(self, name: str, scope: CancelScope, on_failure: OnFailure) -> None:
        self.name = name
        self._on_failure = on_failure
        self._scope = scope
        self._phase = NEW
        self._closed: str | None = None
        self._stopping = False
        # Whether its threads are spread over the carriers of the run.
        self._spreads = False
        self._body: VirtualThread | None = None
        # Threads that have not ended.
        self._members: dict[VirtualThread, None] = {}
        self._scope._members = self._members
        # Owners of threads without a block, such as `map`. The end of this group waits for their threads.
        self._guests: dict[Any, None] = {}
        # Failures to raise, in the order in which they happened. The key is the ident of the member, whose future may
        # take the failure out, or a new object if there is no such future.
        self._failures: dict[object, BaseException] = {}
        self._some_were_taken = False
        self._ended = EndedFutures()
        self._listeners: WeakSet[Completions] | None = None
        # Reentrant: the garbage collector may run a finalizer that spawns while this thread holds it.
        self._changing = Section()
        self._empty = WaitQueue()
        self._grace_timer: Timer | None = None

    def __reduce__(self) -> NoReturn:
        refuse_copy(self)

    def __repr__(self) -> str:
        state = "cancelled" if self._scope._cancel_called else "closed" if self._closed else self._phase.value
        return f"<ThreadGroup {self.name!r} {state} members={len(self._members)} failures={len(self._failures)}>"

    def __len__(self) -> int:
        return len(self._members)

    def __bool__(self) -> bool:
        # Otherwise `__len__` would decide, and `group or default` would drop a group that has no members.
        return True

    def __iter__(self) -> Iterator[VirtualThread]:
        return iter(list(self._members))

    # --- spawning

    @compiled
    def spawn(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Start a virtual thread that calls `fn(*args, **kwargs)`. See `ThreadGroup.spawn`."""
        future = self._spawn(fn, args, kwargs, wait=True)
        assert future is not None
        return future

    def try_spawn(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T] | None:
        """Like `spawn`, but return None instead of waiting or queueing if the group is full. Never a checkpoint."""
        return self._spawn(fn, args, kwargs, wait=False)

    def submit(self, executor: Executor, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Start a member that runs in `executor`, as in a pool of processes: `executor.submit(fn, *args, **kwargs)`.

        A virtual thread waits for the call, so all rules of `spawn` hold: a full group makes the caller wait, the slot
        is held until the call has ended, and a failure of the call is a failure of the group. A failure of
        `executor.submit` itself is one too. The member calls it when it starts, so shut the executor down after the end
        of the group. Contextvars are not passed to the call. Not a checkpoint unless the group is full; thread-safe.

        A cancellation calls `cancel()` of the future that `executor` has returned. A call that runs and cannot be
        cancelled is waited for within the cleanup grace: if it ends by then, its outcome is that of the member.
        Otherwise it is abandoned: the member ends as cancelled, dumps list the call until its end, and a later failure
        is logged. If other code cancels the future of the executor, the member counts as cancelled, not as failed.

        Raises:
            TypeError: `executor` has no method `submit`, or `fn` cannot be called.
            GroupClosed: the group accepts no more threads.
            GroupFull: a member submitted, and `max_pending` children are queued already.
            Cancelled: the caller is inside this group, and the group is cancelled.
        """
        future: Future[T] | None = self._spawn(SubmittedCall(executor, fn, args, kwargs).run, (), {}, wait=True)
        assert future is not None
        return future

    def _take_slot(self, thread: VirtualThread) -> Callable[[], None] | None:
        """Keep the slot of `thread` beyond its end; return the function that releases it. None: it has no slot."""
        return None

    @repeated_in("_core/compiled/members.pxi")
    def _spawn(
        self, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any], wait: bool
    ) -> Future[T] | None:
        check_function(fn, "spawn" if wait else "try_spawn")
        thread = self._admit(own_runtime(running()), (fn, args, kwargs))
        # Read it before the launch: the thread drops its reference when it ends, which may be at once.
        future: Future[T] = thread._future
        self._launch(thread)
        return future

    @repeated_in("_core/compiled/members.pxi")
    def _admit(self, caller: VirtualThread | None, call: Call, context: Context | None = None) -> VirtualThread:
        sites = sites_here(caller)
        with self._changing:
            thread = self._add(caller, call, sites, context)
        thread._attach_member(self._scope)
        return thread

    @compiled
    def _add(
        self, caller: VirtualThread | None, call: Call, sites: tuple[SpawnSite, ...], context: Context | None = None
    ) -> VirtualThread:
        """Create a member, which is not attached to the scope yet (called with `_changing` held)."""
        self._refuse_if_over(caller)
        context = inherited_context() if context is None else context
        thread = VirtualThread.__new__(VirtualThread)._init_thread(
            self._scheduler_for(caller), context, self, call, sites
        )
        thread._future = Future.__new__(Future)._init_future(thread)
        self._members[thread] = None
        return thread

    def _scheduler(self) -> Scheduler:
        assert self._body is not None
        return self._body._scheduler

    def _scheduler_for(self, caller: VirtualThread | None) -> Scheduler:
        """Return the scheduler of a thread that `caller` spawns: its own, if the group belongs to the same run."""
        home = self._scheduler()
        if caller is None or home.placement is None or caller._scheduler.placement is not home.placement:
            return home
        return caller._scheduler

    @repeated_in("_core/compiled/members.pxi")
    def _launch(self, thread: VirtualThread) -> None:
        """Run `thread` up to its first park, or make its carrier run it, or another one if the group spreads."""
        scheduler = thread._scheduler
        if self._spreads:
            place(thread)
        elif thread._is_here() and scheduler.running is not None:
            scheduler.start(thread)
        else:
            scheduler.post(scheduler.make_ready, thread)

    def _is_member(self, caller: VirtualThread | None) -> bool:
        """Return whether `caller` is a thread of this group, or of a group nested in one of its threads."""
        node: CancelNode | None = caller
        while node is not None:
            if isinstance(node, VirtualThread) and node.group is self:
                return True
            node = node._parent
        return False

    def _is_inside(self, caller: VirtualThread | None) -> bool:
        return caller is not None and caller._innermost._is_inside(self._scope)

    @repeated_in("_core/compiled/members.pxi")
    def _refuse_if_over(self, caller: VirtualThread | None) -> None:
        why = self._why_over()
        if why is None:
            return
        if caller is not None and caller._innermost._affected_by is not None and self._is_inside(caller):
            raise caller._deliver(caller._innermost._affected_by)
        raise GroupClosed(f"{self!r} accepts no more threads: {why}", self)

    @repeated_in("_core/compiled/members.pxi")
    def _why_over(self) -> str | None:
        if self._phase is NEW:
            return "it was not entered; use it in a with statement"
        if self._phase is EXITED:
            return "its block has ended"
        if self._closed is not None:
            return self._closed
        if self._scope._affected_by is not None:
            return self._scope._affected_by._cancel_reason or "it was cancelled"
        return None

    # --- ends of members (called in the ending thread)

    @repeated_in("_core/compiled/members.pxi")
    def _settle(self, thread: VirtualThread, value: Any, error: BaseException | None) -> None:
        """Handle the outcome of a member: treat a failure as `on_failure` says, and set its future."""
        future = thread._future
        state = FINISHED
        try:
            if error is not None:
                error = without_cancelled(error)
                state = CANCELLED if error is None else FINISHED
            if error is not None:
                thread._note_sites(error)
                self._failed(error, thread, future)
        finally:
            future._settle(state, value, error)

    def _failed_at_end(self, thread: VirtualThread, error: BaseException) -> None:
        """Handle a failure of code that is called at the end of a member: it counts as a failure of the group."""
        if not thread._future.done():
            thread._future._settle(FINISHED, None, error)
        self._failed(error, thread, None)

    def _failed(self, error: BaseException, thread: VirtualThread, future: Future[Any] | None) -> None:
        if self._refused(error):
            return
        is_fatal = is_a(error, FATAL)
        if self._on_failure == "report" and thread is not self._body and not is_fatal:
            report(error, thread)
            return
        self._note_failure(error, thread, future)
        if self._on_failure == "cancel" or is_fatal:
            why = summary_without_delivery(error)
            self._scope._request_cancel(f"{thread.name!r} in group {self.name!r} failed: {why}", thread)

    def _refused(self, error: BaseException) -> bool:
        """Return whether `error` is this group's own refusal of a late spawn."""
        return is_a(error, GroupClosed) and error.group is self

    def _note_failure(self, error: BaseException, thread: VirtualThread, future: Future[Any] | None) -> None:
        is_first = not self._failures
        self._failures[object() if future is None else thread._thread_ident] = error
        if is_first and (thread is not self._body or self._members):
            for participant in participants():
                if participant.group_failed is not None:
                    participant.group_failed(error)

    def _failure_taken(self, thread: VirtualThread) -> None:
        """Mark the failure of `thread` as fetched: an independent one is not raised at the end. Thread-safe."""
        self._some_were_taken = True
        failure = self._failures.get(thread._thread_ident)
        if failure is not None and self._on_failure == "continue" and not is_a(failure, FATAL):
            self._failures.pop(thread._thread_ident, None)

    @repeated_in("_core/compiled/members.pxi")
    def _member_ended(self, thread: VirtualThread) -> None:
        """Handle the end of a member: unpark the waiters if it was the last one."""
        with self._changing:
            del self._members[thread]
            self._ended.add(thread._future)
            for listener in self._listeners or ():
                listener.add(thread._future)
            empty = not self._members
        if empty:
            self._empty.unpark_all()

    # --- control

    def cancel(self, reason: str | None = None) -> None:
        """Cancel all members and the body; the block then ends normally. Not a checkpoint; thread-safe.

        Args:
            reason: a sentence for `Cancelled.reason`.
        """
        self._scope.cancel(reason or f"group {self.name!r} was cancelled")

    def close(self) -> None:
        """Accept no more threads; running ones continue. Not a checkpoint; thread-safe."""
        self._closed = self._closed or "it was closed"

    def shutdown(self, grace: float | None = None) -> None:
        """Request the members to end, and return at once. Not a checkpoint; thread-safe.

        No more spawns; `vthreads.stopping()` becomes true for members at any depth.

        Args:
            grace: seconds after which the members are cancelled; None: never.
        """
        seconds = checked_seconds(grace, "grace")
        self._closed = "it is shutting down"
        self._stopping = True
        if seconds < inf and self._phase in (OPEN, LEAVING):
            scheduler = self._scheduler()
            scheduler.post(self._arm_grace, scheduler.clock.now() + seconds)

    def _arm_grace(self, when: float) -> None:
        self._disarm_grace()
        if self._phase is not EXITED:
            self._grace_timer = self._scheduler().timers.add(when, self)

    def _disarm_grace(self) -> None:
        if self._grace_timer is not None:
            self._scheduler().timers.cancel(self._grace_timer)
            self._grace_timer = None

    def _expire(self) -> None:
        """Handle the end of the grace of `shutdown` (called by the scheduler)."""
        self._grace_timer = None
        self.cancel(f"group {self.name!r} was shut down and its grace is over")

    def as_completed(self) -> Iterator[Future[Any]]:
        """Yield each member's future once, as they end, including later members; end when no member is left.

        The iterator records from this call on. Members that ended earlier come first, if their futures are still
        referenced: the group keeps no results by itself. The call is not a checkpoint, but each step is one.
        Thread-safe.

        Raises:
            RuntimeError: members have ended before the call, and their futures are gone.
        """
        with self._changing:
            ended = self._ended.held()
            gone = self._ended.count - len(ended)
            if not gone:
                completions = Completions(self._members, self._changing, ended)
                self._listeners = self._listeners or WeakSet()
                self._listeners.add(completions)
                return completions
        raise RuntimeError(
            f"{self!r}.as_completed() cannot yield {gone} of {self._ended.count + len(self._members)} members: they "
            "ended before this call, and their futures were not kept; call as_completed() before spawning, or keep "
            "the futures and use vthreads.as_completed(futures)"
        )

    # --- the end

    def _wait_for_members(self, body: VirtualThread) -> None:
        """Wait until every member has ended. An interrupt cancels them, and the wait continues."""
        while True:
            with self._changing:
                if self._all_ended():
                    self._phase = self._phase_when_empty
                    return
                waiter = waiter_here()
                self._empty.add(waiter)
                # While a finalizer ran, the last member may have ended after the check. So check again.
                missed = not self._members and not self._guests and self._empty.withdraw(waiter)
            if missed:
                continue
            try:
                waiter._park_for_interrupts(partial(self._empty.withdraw, waiter))
            except BaseException as interrupt:  # noqa: BLE001  # raised at the end, as a failure of the body
                self._note_failure(interrupt, body, None)
                self._scope._request_cancel(
                    f"{body.name!r} was interrupted: {summary_without_delivery(interrupt)}", body
                )

    def _all_ended(self) -> bool:
        """Return whether no thread is left. Without members no code can use the guests, so make them give up."""
        if not self._members:
            for guest in list(self._guests):
                guest.give_up(f"group {self.name!r} has ended")
        return not self._members and not self._guests

    def _take_guest(self, guest: Any) -> None:
        """End the block only after `guest`, which defines `give_up(reason)` and calls `_guest_left` later."""
        with self._changing:
            self._guests[guest] = None

    def _guest_left(self, guest: Any) -> None:
        """Handle the end of `guest`."""
        with self._changing:
            self._guests.pop(guest, None)
        self._empty.unpark_all()

    def _take_failures(self) -> list[BaseException]:
        """Remove and return the failures to raise, each once. Keeping them would keep the frames that refer here."""
        failures = {id(failure): failure for failure in self._failures.values()}
        self._failures.clear()
        return list(failures.values())

    def _survive_fork(self) -> None:
        """Remove all members, in the child of a fork, where they do not exist."""
        self._members.clear()
        self._guests.clear()
        self._grace_timer = None
        self._empty.forget_all()
