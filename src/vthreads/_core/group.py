"""The block that owns virtual threads: it ends when they have ended, and their failures come out of it.

    NEW ──enter──> OPEN ──body left──> LEAVING ──last member ended──> EXITED

Open or leaving, a group takes new threads unless it is cancelled, failed or closed. Its cancel scope does all the
cancelling; this file decides when, and what is raised at the end. How a thread is switched is not known here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextvars import Context, copy_context
from enum import Enum
from itertools import count
from math import inf
from traceback import format_exception_only
from types import TracebackType
from typing import Any, NoReturn, ParamSpec, TypeVar
from weakref import WeakSet

from ..errors import Cancelled, GroupClosed, GroupFull
from .cancel import CancelNode, CancelScope, checked_seconds
from .current import checkpoint, running, started_here
from .engine import Roster, Scheduler, Section, compiled
from .engine.timers import Timer
from .future import CANCELLED, FINISHED, Future
from .semaphore import Semaphore
from .spawn_site import LONGEST_CHAIN, caller_site
from .thread import VirtualThread
from .wait_queue import WaitQueue, waiter_here

__all__ = ["ThreadGroup", "current_group", "failure_hooks"]

P = ParamSpec("P")
T = TypeVar("T")

Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]

# Ended futures kept for `as_completed`; bounded, so that a server's group does not grow for ever.
ENDED_KEPT = 10_000

# Raised bare, whatever else failed. A generator that is closed inside the block waits for its GeneratorExit as it is.
FATAL = (KeyboardInterrupt, SystemExit, GeneratorExit)

# Called with the first failure of a group in which others are alive, before it cancels them. Must not park or raise.
failure_hooks: list[Callable[[BaseException], None]] = []

numbers = count(1)


class Phase(Enum):
    """See the diagram in the module's docstring."""

    NEW = "new"
    OPEN = "open"
    LEAVING = "leaving"
    EXITED = "exited"


# Names of this module: an attribute of an enum class is slow to get.
NEW, OPEN, LEAVING, EXITED = Phase


def _told(error: BaseException) -> str:
    # Not its repr: that is the user's code, and may fail. The standard function copes with it.
    return format_exception_only(error)[0].strip()


class _CurrentGroup:
    """`ThreadGroup.current`: an attribute of the class that is computed at each access."""

    def __get__(self, instance: object, owner: type) -> ThreadGroup:
        return current_group()


def current_group() -> ThreadGroup:
    """The innermost group that the running code is in; outside any, the background group. Starts the runtime."""
    thread = started_here()
    node: CancelNode | None = thread.innermost
    while node is not None:
        if isinstance(node, CancelScope) and node.group is not None:
            group: ThreadGroup = node.group
            return group
        node = node._parent
    background: ThreadGroup = thread.scheduler.background
    return background


class ThreadGroup(Roster):
    """A block that owns virtual threads: `with ThreadGroup() as g: g.spawn(fn)`.

    The block ends when all its threads have ended. The first failure cancels the others and the body, and comes out of
    the block in an `ExceptionGroup`. Modelled on Trio's nurseries and Java's `StructuredTaskScope`.

    Args:
        name: shown in dumps and messages.
        max_concurrency: how many members run at once, as an `int`, or a `Semaphore` that several groups share. While
            the group is full, `spawn` parks (back-pressure), but a member's own spawn queues its child.
        max_pending: how many children of members may be queued; None: any number.
        on_failure: "cancel": the first failure cancels all others; "continue": failures are independent.
        errors: "group": an `ExceptionGroup` is raised, even for one failure; "first": the first failure itself, the
            others in its `suppressed` (a tuple) and as notes.
        cleanup_grace: seconds that blocking calls in the cleanup of cancelled members may take; None: as outside.

    Attributes:
        current: (on the class) the innermost group of the running code.

    Entering makes a plain OS thread a carrier and is no checkpoint; leaving is one.

    Raises:
        ValueError: an argument is out of its range.
    """

    current = _CurrentGroup()

    def __init__(
        self,
        name: str | None = None,
        *,
        max_concurrency: int | Semaphore | None = None,
        max_pending: int | None = None,
        on_failure: str = "cancel",
        errors: str = "group",
        cleanup_grace: float | None = None,
    ) -> None:
        if isinstance(max_concurrency, int) and max_concurrency < 1:
            raise ValueError(f"max_concurrency={max_concurrency}: a group runs at least 1 thread at a time")
        if max_pending is not None and max_pending < 0:
            raise ValueError(f"max_pending={max_pending}: give 0 or more, or None for no limit")
        if on_failure not in ("cancel", "continue"):
            raise ValueError(f'on_failure={on_failure!r}: choose "cancel" or "continue"')
        if errors not in ("group", "first"):
            raise ValueError(f'errors={errors!r}: choose "group" or "first"')
        self.name = name if name is not None else f"group-{next(numbers)}"
        self._permits = Semaphore(max_concurrency) if isinstance(max_concurrency, int) else max_concurrency
        self._max_pending = inf if max_pending is None else max_pending
        self._on_failure = on_failure
        self._errors = errors
        self._scope = CancelScope(cleanup_grace=cleanup_grace)
        self._scope.group = self
        self._scope._children = {}
        self._phase = NEW
        self._closed: str | None = None
        self.stopping = False
        self._body: VirtualThread | None = None
        # Threads that have not ended; and of these, those that wait for a permit.
        self._members: dict[VirtualThread, None] = {}
        self._queued: set[VirtualThread] = set()
        # Threads that hold one of the permits.
        self._permitted: set[VirtualThread] = set()
        # Owners of threads that have no block of their own, and must not outlive this group.
        self._guests: dict[Any, None] = {}
        # Failures in the order in which they happened, with the future that can take them.
        self._failures: list[tuple[BaseException, Future[Any] | None]] = []
        self._ended: deque[Future[Any]] = deque(maxlen=ENDED_KEPT)
        self._listeners: WeakSet[_Completions] | None = None
        # Reentrant, because a finalizer that spawns may run inside.
        self._changing = Section()
        self._empty = WaitQueue()
        self._grace_timer: Timer | None = None

    def __repr__(self) -> str:
        state = "cancelled" if self._scope.cancel_called else "closed" if self._closed else self._phase.value
        return f"<ThreadGroup {self.name!r} {state} members={len(self._members)} failures={len(self._failures)}>"

    def __len__(self) -> int:
        return len(self._members)

    def __bool__(self) -> bool:
        # A group without members is still a group.
        return True

    def __iter__(self) -> Iterator[VirtualThread]:
        return iter(list(self._members))

    # --- spawning

    @compiled
    def spawn(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Start a virtual thread that calls `fn(*args, **kwargs)`.

        It runs at once up to its first park; then the caller goes on, before anyone else. It sees a copy of the
        caller's contextvars. No checkpoint unless the group is full. Thread-safe: from an OS thread that is not the
        group's carrier the child is queued there. Works as a decorator.

        Raises:
            GroupClosed: the group takes no more threads.
            GroupFull: a member spawned, and `max_pending` children are queued already.
            Cancelled: the caller is inside this group, and it is cancelled.
        """
        future = self._spawn(fn, args, kwargs, wait=True)
        assert future is not None
        return future

    def try_spawn(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T] | None:
        """`spawn`, but None instead of waiting or queueing when the group is full. Never a checkpoint."""
        return self._spawn(fn, args, kwargs, wait=False)

    def _spawn(
        self, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any], wait: bool
    ) -> Future[T] | None:
        caller = running()
        queue_it = False
        if self._permits is not None:
            self._refuse_if_over(caller)
            if not wait:
                if not self._permits.acquire(blocking=False):
                    return None
            elif self._is_member(caller):
                queue_it = not self._permits.acquire(blocking=False)
            elif not self._permits.acquire(blocking=False):
                self._permits.acquire()
        try:
            thread = self._admit(caller, (fn, args, kwargs), queue_it)
        except BaseException:
            if self._permits is not None and not queue_it:
                self._permits.release()
            raise
        # Taken now: the thread lets go of it when it ends, which may be at once.
        future: Future[T] = thread.future
        if queue_it:
            self._queue(thread)
        else:
            self._launch(thread)
        return future

    def _admit(
        self, caller: VirtualThread | None, call: Call, queue: bool, context: Context | None = None
    ) -> VirtualThread:
        site = caller_site()
        inherited = () if caller is None else caller.sites[: LONGEST_CHAIN - 1]
        sites = inherited if site is None else (site, *inherited)
        with self._changing:
            # The group may have closed while the caller waited for a permit.
            self._refuse_if_over(caller)
            if queue and len(self._queued) >= self._max_pending:
                raise GroupFull(
                    f"{self!r} is full and {len(self._queued)} children of its members are queued already; "
                    "raise max_pending, or let the body spawn, which waits"
                )
            thread = VirtualThread(self._scheduler(), copy_context() if context is None else context, self, call, sites)
            thread.future = Future(thread)
            self._members[thread] = None
            if queue:
                self._queued.add(thread)
            elif self._permits is not None:
                self._permitted.add(thread)
        thread._attach(self._scope)
        return thread

    def _scheduler(self) -> Scheduler:
        assert self._body is not None
        return self._body.scheduler

    def _launch(self, thread: VirtualThread) -> None:
        scheduler = thread.scheduler
        if thread.is_here() and scheduler.running is not None:
            scheduler.start(thread)
        else:
            scheduler.post(scheduler.make_ready, thread)

    def _queue(self, thread: VirtualThread) -> None:
        """Let `thread` start when it is given a permit; it waits for one without having run."""
        permits = self._permits
        assert permits is not None
        if not thread.is_here():
            thread.scheduler.post(self._queue, thread)
            return
        thread.wait_unstarted(lambda: permits.withdraw(thread))
        if permits.take_or_queue(thread):
            thread.unpark()
        elif thread._affected_by is not None:
            thread.notice()

    def dequeued(self, thread: VirtualThread, *, granted: bool) -> None:
        """A queued child begins to run, with a permit, or only to end (called in it)."""
        with self._changing:
            self._queued.discard(thread)
            if granted:
                self._permitted.add(thread)

    def _is_member(self, caller: VirtualThread | None) -> bool:
        """Whether `caller` is a thread of this group, or of a group nested in one of its threads."""
        node: CancelNode | None = caller
        while node is not None:
            if isinstance(node, VirtualThread) and node.group is self:
                return True
            node = node._parent
        return False

    def _is_inside(self, caller: VirtualThread | None) -> bool:
        return caller is not None and caller.innermost.is_inside(self._scope)

    def _refuse_if_over(self, caller: VirtualThread | None) -> None:
        why = self._why_over()
        if why is None:
            return
        if caller is not None and caller.innermost._affected_by is not None and self._is_inside(caller):
            raise caller._deliver(caller.innermost._affected_by)
        raise GroupClosed(f"{self!r} takes no more threads: {why}", self)

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

    # --- members' ends (called in the ending thread)

    def settle(self, thread: VirtualThread, value: Any, error: BaseException | None) -> None:
        """A member has its outcome: cancel the others if it failed, and tell its future."""
        future = thread.future
        state = FINISHED
        if isinstance(error, Cancelled):
            state, error = CANCELLED, None
        elif error is not None:
            thread.note_sites(error)
            self._failed(error, thread, future)
        future.settle(state, value, error)

    def _failed(self, error: BaseException, thread: VirtualThread, future: Future[Any] | None) -> None:
        if isinstance(error, GroupClosed) and error.group is self:
            return
        self._note_failure(error, thread, future)
        if self._on_failure == "cancel" or isinstance(error, FATAL):
            self._scope._request_cancel(f"{thread.name!r} in group {self.name!r} failed: {_told(error)}", thread)

    def _note_failure(self, error: BaseException, thread: VirtualThread, future: Future[Any] | None) -> None:
        if failure_hooks and not self._failures and (thread is not self._body or self._members):
            for hook in failure_hooks:
                hook(error)
        self._failures.append((error, future))

    def left(self, thread: VirtualThread) -> None:
        """A member has ended: give its permit back, and let the block end if it was the last."""
        with self._changing:
            del self._members[thread]
            permitted = thread in self._permitted
            self._permitted.discard(thread)
            self._ended.append(thread.future)
            for listener in self._listeners or ():
                listener.add(thread.future)
            empty = not self._members
        if permitted and self._permits is not None:
            self._permits.release()
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
        """Take no more threads; those that run go on. Not a checkpoint; thread-safe."""
        self._closed = self._closed or "it was closed"

    def shutdown(self, grace: float | None = None) -> None:
        """Ask the members to end, and return at once. Not a checkpoint; thread-safe.

        No more spawns; `vthreads.stopping()` becomes true for members at any depth.

        Args:
            grace: seconds after which the members are cancelled; None: never.
        """
        seconds = checked_seconds(grace, "grace")
        self._closed = "it is shutting down"
        self.stopping = True
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

    def expire(self) -> None:
        """The grace of `shutdown` is over (called by the scheduler)."""
        self._grace_timer = None
        self.cancel(f"group {self.name!r} was shut down and its grace is over")

    def as_completed(self) -> Iterator[Future[Any]]:
        """Each member's future once, as they end, those spawned meanwhile included; ends when none is left.

        Those that ended before the call come first (the last 10,000 of them). Each step is a checkpoint.
        """
        with self._changing:
            completions = _Completions(self, self._ended)
            self._listeners = self._listeners or WeakSet()
            self._listeners.add(completions)
        return completions

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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        body = running()
        if body is None or body.innermost is not self._scope:
            self._misused(body)
        if self._phase is OPEN:
            self._phase = LEAVING
        if error is not None and not isinstance(error, Cancelled):
            self._failed(error, body, None)
            if isinstance(error, GroupClosed) and error.group is self:
                self._scope._request_cancel(f"the body of group {self.name!r} failed: {_told(error)}", body)
        self._wait_for_members(body)
        self._disarm_grace()
        self._scope._leave()
        return self._conclude(body, error)

    def _misused(self, body: VirtualThread | None) -> NoReturn:
        self.cancel(f"group {self.name!r} was left out of order")
        if body is not None and body is self._body:
            # Whatever else is wrong, no thread outlives its group.
            self._wait_for_members(body)
            self._disarm_grace()
        raise self._scope.misused(body)

    def _wait_for_members(self, body: VirtualThread) -> None:
        """Wait until every member has ended; an interrupt cancels them and the wait goes on."""
        while True:
            with self._changing:
                if self._all_ended():
                    self._phase = EXITED
                    return
                self._empty.add(body)
            try:
                body.park_for_interrupts(lambda: self._empty.withdraw(body))
            except BaseException as interrupt:  # noqa: BLE001  # raised at the end, as a failure of the body
                self._note_failure(interrupt, body, None)
                self._scope._request_cancel(f"{body.name!r} was interrupted: {_told(interrupt)}", body)

    def _all_ended(self) -> bool:
        """Whether nobody is left. Once no member is left to want anything of the guests, these are told to give up."""
        if not self._members:
            for guest in list(self._guests):
                guest.give_up(f"group {self.name!r} has ended")
        return not self._members and not self._guests

    def host(self, guest: Any) -> None:
        """Let the block end only after `guest`, which has the method `give_up(reason)` and calls `guest_left` later."""
        with self._changing:
            self._guests[guest] = None

    def guest_left(self, guest: Any) -> None:
        """Nothing of `guest` is left."""
        with self._changing:
            self._guests.pop(guest, None)
        self._empty.unpark_all()

    def _conclude(self, body: VirtualThread, error: BaseException | None) -> bool:
        """Raise what the block has to raise; the answer of `__exit__`."""
        failures = self._failures_to_raise()
        if failures:
            return self._raise_failures(failures, error)
        if error is None:
            # Leaving is a checkpoint: a cancellation of an enclosing scope that came meanwhile comes out here.
            body.check()
            return True
        if isinstance(error, Cancelled) and self._scope._absorbs():
            self._scope.cancelled_caught = True
            return True
        return False

    def _failures_to_raise(self) -> list[BaseException]:
        failures: dict[int, BaseException] = {}
        for failure, future in self._failures:
            fatal = isinstance(failure, FATAL)
            if fatal or self._on_failure == "cancel" or future is None or not future.failure_taken:
                failures.setdefault(id(failure), failure)
        return list(failures.values())

    def _raise_failures(self, failures: list[BaseException], error: BaseException | None) -> bool:
        fatal = next((failure for failure in failures if isinstance(failure, FATAL)), None)
        if fatal is None and self._errors == "group":
            message = f"{len(failures)} failure{'s' if len(failures) > 1 else ''} in ThreadGroup {self.name!r}"
            raise BaseExceptionGroup(message, failures) from None
        chosen = failures[0] if fatal is None else fatal
        others = tuple(failure for failure in failures if failure is not chosen)
        for other in others:
            chosen.add_note(f"also failed in ThreadGroup {self.name!r}: {_told(other)}")
        if fatal is None:
            chosen.suppressed = others  # type: ignore[attr-defined]  # documented in the class
        if chosen is error:
            # Already on its way: raised again, it would only gain traceback entries.
            return False
        context = chosen.__context__
        try:
            raise chosen
        finally:
            # What it came from is its own matter, and not what the body is handling here.
            chosen.__context__ = context
            del chosen, others, failures, fatal

    def survive_fork(self) -> None:
        """In the child of a fork the members are not there."""
        self._members.clear()
        self._guests.clear()
        self._queued.clear()
        self._permitted.clear()
        self._grace_timer = None
        self._empty.forget_all()


class _Completions(Iterator[Future[Any]]):
    """The iterator of `as_completed`."""

    def __init__(self, group: ThreadGroup, ended: deque[Future[Any]]) -> None:
        self._group = group
        self._futures = deque(ended)
        self._waiting = WaitQueue()

    def add(self, future: Future[Any]) -> None:
        """A member has ended (called with the group's changes locked)."""
        self._futures.append(future)
        self._waiting.unpark_all()

    def __next__(self) -> Future[Any]:
        checkpoint()
        while True:
            waiter = waiter_here()
            with self._group._changing:
                if self._futures:
                    return self._futures.popleft()
                # A member that iterates does not wait for itself.
                if not self._group._members.keys() - {running()}:
                    raise StopIteration
                self._waiting.add(waiter)
            self._waiting.park(waiter)
