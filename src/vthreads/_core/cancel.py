"""Level cancellation: a tree of nodes, and the effect of a cancelled node on the threads inside.

Nodes are cancel scopes and virtual threads (a virtual thread is a scope around the code that it runs). Each node stores
the cancelled node that affects it: the outermost one that no shield hides. Cancelling walks down the tree and notifies
the threads; a thread raises `Cancelled` at its checkpoints as long as its innermost node is affected. The semantics are
Trio's, plus the cleanup grace.

The tree needs no lock: a new node first enters its parent's children (a thread the members of its owner) and then reads
the parent's state; a canceller first sets its state and then lists the nodes below. So in any order one of the two sees
the other. And each writer of `_affected_by` checks again after writing, so that the last one to write has seen the
newest state.
"""

from __future__ import annotations

from collections.abc import Collection
from math import inf
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from ..errors import Cancelled, ScopeMisuse
from .arguments import checked_seconds
from .copies import refuse_copy
from .dropped import warn_dropped
from .engine import running
from .exceptions import raise_as_it_is, without_cancelled
from .repeated import repeated_in
from .starter import started_here

if TYPE_CHECKING:
    from .engine import Scheduler
    from .engine.timers import Timer

__all__ = ["DEFAULT_CLEANUP_GRACE", "CancelNode", "CancelScope", "ThreadInside"]

# Seconds that cleanup may block, unless a scope sets another value.
DEFAULT_CLEANUP_GRACE = 2.0


class ThreadInside(Protocol):
    """The part of the thread inside a scope that the tree uses."""

    _innermost: CancelNode
    _pending: bool
    _scheduler: Scheduler

    def _is_here(self) -> bool:
        """Return whether the thread belongs to the calling OS thread."""

    def _notice(self) -> None:
        """Check what is pending, because the node that affects the thread has changed. Thread-safe."""

    def _refresh(self) -> None:
        """Check what is pending, because the innermost scope has changed."""

    def _grace_until(self) -> float:
        """Return until when the thread may block for its cleanup; `-inf` if it is not cleaning up."""

    def _forget_delivery(self, node: CancelNode) -> None:
        """Drop the delivery of the cancellation of `node`, which was left."""

    def _abandon_scopes(self, until: CancelNode) -> None:
        """Leave the scopes inside `until` that the program did not leave."""


class CancelNode:
    """A node of the tree. Subclasses declare the slots, because a virtual thread has a second base with slots."""

    if not TYPE_CHECKING:
        __slots__ = ()

    _NODE_SLOTS = (
        "_affected_by",
        "_cancel_called",
        "_cancel_reason",
        "_cancel_source",
        "_children",
        "_cleanup_grace",
        "_parent",
    )

    _affected_by: CancelNode | None
    _parent: CancelNode | None
    _children: dict[CancelNode, None] | None
    _cancel_called: bool
    _cleanup_grace: float | None

    @repeated_in("_core/compiled/members.pxi")
    def _init_node(self, cleanup_grace: float | None = None) -> None:
        self._parent = None
        self._children = None
        self._affected_by = None
        self._cancel_called = False
        self._cancel_reason: str | None = None
        self._cancel_source: Any = None
        self._cleanup_grace = cleanup_grace

    def _attach(self, parent: CancelNode | None) -> None:
        self._parent = parent
        if parent is not None:
            if parent._children is None:
                parent._children = {}
            parent._children[self] = None
        self._update_affected()

    @repeated_in("_core/compiled/members.pxi")
    def _attach_member(self, parent: CancelNode) -> None:
        """Attach a thread that its owner has entered into its members, which are below the scope `parent`."""
        # Set the parent before the check. A canceller on another OS thread sets its state before it lists the members.
        # So either the check sees the cancellation, or the canceller finds this thread and reads its parent.
        self._parent = parent
        if parent._affected_by is not None or self._cancel_called:
            self._update_affected()

    @repeated_in("_core/compiled/members.pxi")
    def _detach(self) -> None:
        if self._parent is not None and self._parent._children is not None:
            self._parent._children.pop(self, None)
        if self._children:
            for child in list(self._children):
                child._outlive(self)

    def _nodes_below(self) -> list[CancelNode]:
        """Return the present nodes directly below this one, in order of spawning or entering."""
        return list(self._children or ())

    def _outlive(self, parent: CancelNode) -> None:
        """Handle that `parent` was left with this node below it; a node that may stay moves to another parent."""

    def _shielded(self) -> bool:
        return False

    def _is_inside(self, outer: CancelNode) -> bool:
        """Return whether this is `outer` or a node below it."""
        node: CancelNode | None = self
        while node is not None and node is not outer:
            node = node._parent
        return node is outer

    def _thread_inside(self) -> ThreadInside | None:
        """Return the thread whose innermost node this is, if any."""
        raise NotImplementedError(f"{type(self).__name__} does not define _thread_inside()")

    def _find_affecting(self) -> CancelNode | None:
        if self._parent is not None and not self._shielded():
            outer = self._parent._affected_by
            if outer is not None:
                return outer
        return self if self._cancel_called else None

    def _update_affected(self) -> bool:
        """Update `_affected_by`; return whether it changed."""
        changed = False
        while (affecting := self._find_affecting()) is not self._affected_by:
            self._affected_by = affecting
            changed = True
        return changed

    def _request_cancel(self, reason: str | None, source: Any) -> None:
        if self._cancel_called:
            return
        self._cancel_reason = reason
        self._cancel_source = source
        self._cancel_called = True
        self._spread()

    def _spread(self) -> None:
        """Update this node and all below it, top down, and notify the threads."""
        changed: list[CancelNode] = [self]
        while changed:
            node = changed.pop()
            if not node._update_affected():
                continue
            thread = node._thread_inside()
            if thread is not None:
                thread._notice()
            # In order of spawning, so that the thread that was spawned first is unparked first.
            changed.extend(reversed(node._nodes_below()))

    def _grace(self) -> float:
        node: CancelNode | None = self
        while node is not None:
            if node._cleanup_grace is not None:
                return node._cleanup_grace
            node = node._parent
        return DEFAULT_CLEANUP_GRACE

    def _new_cancelled(self) -> Cancelled:
        return Cancelled(self._cancel_reason, self._cancel_source)


class CancelScope(CancelNode):
    """A block that can be cancelled as a whole: `with CancelScope() as scope:`.

    While it is cancelled, every checkpoint inside raises `Cancelled`; the block absorbs it and ends normally.

    Args:
        deadline: absolute time on `vthreads.now()` at which the scope cancels itself; `inf` or None: never.
        shield: hide the cancellation of enclosing scopes from the code inside.
        cleanup_grace: seconds that blocking calls in cleanup code may still take; None: like the enclosing scope.

    Attributes:
        cancelled_caught: whether the block absorbed a `Cancelled` of this scope when it ended.

    Entering makes a plain OS thread a carrier. Entering and leaving are no checkpoints. `cancel` may be called from any
    OS thread.
    """

    __slots__ = (
        *CancelNode._NODE_SLOTS,
        "__weakref__",
        "_absorbing",
        "_deadline",
        "_group",
        "_has_exited",
        "_members",
        "_seconds",
        "_shield_until",
        "_shield_timer",
        "_thread",
        "_timer",
        "cancelled_caught",
    )

    def __init__(
        self, deadline: float | None = inf, *, shield: bool = False, cleanup_grace: float | None = None
    ) -> None:
        self._init_node(None if cleanup_grace is None else checked_seconds(cleanup_grace, "cleanup_grace"))
        self._deadline = checked_seconds(deadline, "deadline")
        # For subclasses with a relative time limit or a bounded shield: seconds from entering, and the shield's end.
        self._seconds = inf
        self._shield_until = inf if shield else -inf
        self._shield_timer: Timer | None = None
        self._timer: Timer | None = None
        self._thread: ThreadInside | None = None
        self._has_exited = False
        self._absorbing = False
        self.cancelled_caught: bool = False
        # The group to which this scope belongs, until the scope is left.
        self._group: Any = None
        # The threads of the owner of this scope, which are below it: the owner's dict, because a second one with the
        # same threads would take 40 bytes for each.
        self._members: Collection[CancelNode] = ()

    def __reduce__(self) -> NoReturn:
        refuse_copy(self)

    def __repr__(self) -> str:
        deadline = "" if self._deadline == inf else f" deadline={self._deadline:.3f}"
        state = "left" if self._has_exited else "active" if self._thread else "new"
        return f"<CancelScope {state}{' cancelled' if self._cancel_called else ''}{deadline}>"

    def __del__(self) -> None:
        try:
            # The scope of a group is entered by the group, which has its own check.
            dropped = self._thread is None and not self._has_exited and self._group is None
        except AttributeError:
            # `__init__` raised because of a wrong argument.
            return
        if dropped:
            warn_dropped(self, "nothing was in it")

    # --- entering and leaving

    def _nodes_below(self) -> list[CancelNode]:
        # One copy: two of 100,000 members would double the time in which a dump holds up the carrier.
        nodes = list(self._members)
        nodes.extend(self._children or ())
        return nodes

    def __enter__(self) -> CancelScope:
        thread: ThreadInside = started_here()
        if self._thread is not None or self._has_exited:
            raise ScopeMisuse(f"{self!r} was entered before; a scope is used once, so make a new one")
        self._enter(thread)
        return self

    def _enter(self, thread: ThreadInside) -> None:
        self._thread = thread
        if self._seconds < inf or self._deadline < inf:
            now = thread._scheduler.clock.now()
            self._deadline = min(self._deadline, now + self._seconds)
            if self._deadline <= now:
                # Expire before the scope is attached: the thread would be notified as if it were parked inside.
                self._expire()
        if thread._pending:
            # The scope was entered during the cleanup of a cancelled thread. It belongs to the cleanup: its members get
            # the remaining grace of the thread, and its own deadline applies within that.
            self._shield_until = max(self._shield_until, thread._grace_until())
        self._attach(thread._innermost)
        thread._innermost = self
        thread._refresh()
        self._arm()
        self._arm_shield()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self._leave()
        if error is None or not self._absorbs():
            return False
        failure = without_cancelled(error)
        if failure is error:
            return False
        self.cancelled_caught = True
        if failure is not None:
            try:
                raise_as_it_is(failure)
            finally:
                # Break the cycle: the traceback refers to this frame.
                del failure, error
        return True

    def _leave(self) -> None:
        thread: ThreadInside | None = running()
        if thread is None or thread._innermost is not self:
            raise self._misused(thread)
        self._leave_quietly(thread)
        thread._refresh()
        self._absorbing = self._affected_by is self
        self._break_cycles()

    def _break_cycles(self) -> None:
        """Drop all references to other nodes, because nothing is inside any more.

        A scope that was cancelled by its own deadline refers to itself, so only the garbage collector would free it. A
        scope that the program keeps would keep the enclosing scopes and groups alive.
        """
        self._affected_by = self._cancel_source = self._parent = self._group = None

    def _leave_quietly(self, thread: ThreadInside) -> None:
        self._has_exited = True
        self._disarm()
        self._detach()
        assert self._parent is not None
        thread._innermost = self._parent
        thread._forget_delivery(self)

    def _misused(self, thread: ThreadInside | None, block: object = None) -> ScopeMisuse:
        """Return the exception to raise if `thread` leaves this scope (of `block`), which is not its innermost one."""
        misuse = ScopeMisuse(
            f"{block or self!r} is left, but the innermost scope of {thread!r} is "
            f"{thread and thread._innermost!r}; leave groups and scopes in the reverse order of entering, in the "
            "thread that entered them"
        )
        if thread is not None and thread is self._thread and not self._has_exited:
            # The program continues outside the scope, so the thread must not stay inside.
            assert self._parent is not None
            thread._abandon_scopes(self._parent)
        return misuse

    def _absorbs(self) -> bool:
        """Return whether a `Cancelled` that leaves the block ends here, because no enclosing scope is cancelled."""
        return self._absorbing

    def _spread(self) -> None:
        # A scope that was left has nothing inside. As the node that affects itself it would refer to itself again, and
        # only the garbage collector could free it.
        if not self._has_exited:
            super()._spread()

    # --- cancelling

    def cancel(self, reason: str | None = None) -> None:
        """Cancel everything inside. Not a checkpoint; thread-safe; a second call does nothing.

        Args:
            reason: a sentence for `Cancelled.reason`.
        """
        self._request_cancel(reason or f"{self!r} was cancelled", running())

    def _expire(self) -> None:
        """Cancel because the deadline has expired (called by the scheduler)."""
        self._timer = None
        within = f"the block did not end within {self._seconds:g} s"
        self._request_cancel(within if self._seconds < inf else f"the deadline of {self!r} passed", self)

    @property
    def cancel_called(self) -> bool:
        """Whether the scope was cancelled: by `cancel`, or because its deadline expired."""
        return self._cancel_called

    @property
    def deadline(self) -> float:
        """Absolute time on `vthreads.now()`; can be set, also while the scope is active, from any OS thread."""
        return self._deadline

    @deadline.setter
    def deadline(self, deadline: float | None) -> None:
        self._deadline = checked_seconds(deadline, "deadline")
        self._seconds = inf
        thread = self._thread
        if thread is None or self._has_exited:
            return
        if thread._is_here():
            self._arm()
        else:
            thread._scheduler.post(self._arm)

    def _arm(self) -> None:
        self._disarm_deadline()
        if self._deadline == inf or self._cancel_called or self._has_exited:
            return
        assert self._thread is not None
        scheduler = self._thread._scheduler
        if self._deadline <= scheduler.clock.now():
            self._expire()
        else:
            self._timer = scheduler.timers.add(self._deadline, self)

    def _disarm_deadline(self) -> None:
        if self._timer is not None:
            assert self._thread is not None
            self._thread._scheduler.timers.cancel(self._timer)
            self._timer = None

    def _disarm(self) -> None:
        self._disarm_deadline()
        if self._shield_timer is not None:
            assert self._thread is not None
            self._thread._scheduler.timers.cancel(self._shield_timer)
            self._shield_timer = None

    # --- shielding

    @property
    def shield(self) -> bool:
        """Whether the cancellation of enclosing scopes is hidden from the code inside; can be set."""
        return self._shielded()

    @shield.setter
    def shield(self, shield: bool) -> None:
        self._shield_until = inf if shield else -inf
        self._spread()

    def _shielded(self) -> bool:
        return self._shield_until > -inf

    def _arm_shield(self) -> None:
        if self._shielded() and self._shield_until < inf:
            assert self._thread is not None
            self._shield_timer = self._thread._scheduler.timers.add(self._shield_until, _ShieldEnd(self))

    def _drop_shield(self) -> None:
        """Stop hiding the cancellation of enclosing scopes."""
        self._shield_timer = None
        self._shield_until = -inf
        self._spread()

    def _survive_fork(self) -> None:
        """Adapt to the child of a fork: only the forking thread is inside, and timers belong to another scheduler."""
        if self._group is not None:
            self._group._survive_fork()
        self._children = {child: None for child in self._children or () if isinstance(child, CancelScope)}
        self._affected_by = self._find_affecting()
        self._timer = self._shield_timer = None
        self._arm()
        self._arm_shield()

    def _thread_inside(self) -> ThreadInside | None:
        thread = self._thread
        return thread if thread is not None and thread._innermost is self else None


class _ShieldEnd:
    """Timer owner: ends a bounded shield."""

    __slots__ = ("_scope",)

    def __init__(self, scope: CancelScope) -> None:
        self._scope = scope

    def _expire(self) -> None:
        self._scope._drop_shield()
