"""Level cancellation: a tree of nodes, and what a cancelled node means for the thread inside.

Nodes are cancel scopes and virtual threads (a virtual thread is a scope around what it runs). Each node knows by which
cancelled node it is affected: the outermost one that no shield hides. Cancelling walks down and tells the threads
below; a thread raises `Cancelled` at its checkpoints as long as its innermost node is affected. The semantics are
Trio's; the cleanup grace is ours.

How the tree stays right without a lock: a node enters its parent's children first and reads the parent's state then;
a canceller sets its state first and lists the children then. Whatever the order, one of the two sees the other. And
whoever writes what it found looks again afterwards, so that the last one to write has seen the newest state.
"""

from __future__ import annotations

from math import inf, isnan
from typing import TYPE_CHECKING, Any

from ..errors import Cancelled, ScopeMisuse
from .current import running, started_here

if TYPE_CHECKING:
    from types import TracebackType

    from .engine.timers import Timer
    from .thread import VirtualThread

__all__ = ["DEFAULT_CLEANUP_GRACE", "CancelNode", "CancelScope", "checked_seconds", "remaining"]

# Seconds that cleanup may block, where no scope says otherwise.
DEFAULT_CLEANUP_GRACE = 2.0


def checked_seconds(seconds: float | None, name: str) -> float:
    """`seconds` as a float, None as `inf`; NaN would compare as false for ever and is refused."""
    if seconds is None:
        return inf
    if isnan(seconds):
        raise ValueError(f"{name}={seconds!r} is not a time; give seconds as a number, or None for no limit")
    return float(seconds)


class CancelNode:
    """A place in the tree. Its users declare the slots: a virtual thread has a second base that has slots already."""

    if not TYPE_CHECKING:
        __slots__ = ()

    NODE_SLOTS = (
        "_affected_by",
        "_cancel_reason",
        "_cancel_source",
        "_children",
        "_parent",
        "cancel_called",
        "cleanup_grace",
    )

    _affected_by: CancelNode | None
    _parent: CancelNode | None
    _children: dict[CancelNode, None] | None
    cancel_called: bool
    cleanup_grace: float | None

    def _init_node(self, cleanup_grace: float | None = None) -> None:
        self._parent = None
        self._children = None
        self._affected_by = None
        self.cancel_called = False
        self._cancel_reason: str | None = None
        self._cancel_source: Any = None
        self.cleanup_grace = cleanup_grace

    def _attach(self, parent: CancelNode | None) -> None:
        self._parent = parent
        if parent is not None:
            if parent._children is None:
                parent._children = {}
            parent._children[self] = None
        self._update_affected()

    def _detach(self) -> None:
        if self._parent is not None and self._parent._children is not None:
            self._parent._children.pop(self, None)
        if self._children:
            for child in list(self._children):
                child._outlive(self)

    def _outlive(self, parent: CancelNode) -> None:
        """`parent` was left with this node below it; one that may stay finds itself another place."""

    def _shielded(self) -> bool:
        return False

    def is_inside(self, outer: CancelNode) -> bool:
        """Whether this is `outer` or a node below it."""
        node: CancelNode | None = self
        while node is not None and node is not outer:
            node = node._parent
        return node is outer

    def _thread_inside(self) -> VirtualThread | None:
        """The thread whose innermost node this is, if any."""
        raise NotImplementedError(f"{type(self).__name__} says which thread is inside")

    def _find_affecting(self) -> CancelNode | None:
        if self._parent is not None and not self._shielded():
            outer = self._parent._affected_by
            if outer is not None:
                return outer
        return self if self.cancel_called else None

    def _update_affected(self) -> bool:
        """Bring `_affected_by` up to date; tell whether it changed."""
        changed = False
        while (affecting := self._find_affecting()) is not self._affected_by:
            self._affected_by = affecting
            changed = True
        return changed

    def _request_cancel(self, reason: str | None, source: Any) -> None:
        if self.cancel_called:
            return
        self._cancel_reason = reason
        self._cancel_source = source
        self.cancel_called = True
        self._spread()

    def _spread(self) -> None:
        """Bring this node and all below up to date, top down, and tell the threads."""
        changed: list[CancelNode] = [self]
        while changed:
            node = changed.pop()
            if not node._update_affected():
                continue
            thread = node._thread_inside()
            if thread is not None:
                thread.notice()
            if node._children:
                # In order of spawning, so that the first one spawned is the first to be unparked.
                changed.extend(reversed(list(node._children)))

    def _grace(self) -> float:
        node: CancelNode | None = self
        while node is not None:
            if node.cleanup_grace is not None:
                return node.cleanup_grace
            node = node._parent
        return DEFAULT_CLEANUP_GRACE

    def _new_cancelled(self) -> Cancelled:
        return Cancelled(self._cancel_reason, self._cancel_source)


class CancelScope(CancelNode):
    """A block that can be cancelled as a whole: `with CancelScope() as scope:`.

    While it is cancelled, every checkpoint inside raises `Cancelled`; the block absorbs that and ends normally.

    Args:
        deadline: absolute time on `vthreads.now()` at which the scope cancels itself; `inf` or None: never.
        shield: hide the cancellation of enclosing scopes from the inside.
        cleanup_grace: seconds that blocking calls in cleanup code may still take; None: as the enclosing scope.

    Entering makes a plain OS thread a carrier. Entering and leaving are no checkpoints. `cancel` may be called from any
    OS thread.
    """

    __slots__ = (
        *CancelNode.NODE_SLOTS,
        "__weakref__",
        "_deadline",
        "_left",
        "_seconds",
        "_shield_until",
        "_shield_timer",
        "_thread",
        "_timer",
        "cancelled_caught",
        "group",
    )

    def __init__(
        self, deadline: float | None = inf, *, shield: bool = False, cleanup_grace: float | None = None
    ) -> None:
        self._init_node(None if cleanup_grace is None else checked_seconds(cleanup_grace, "cleanup_grace"))
        self._deadline = checked_seconds(deadline, "deadline")
        # Relative time counts from entering; these two belong to the subclasses that take one.
        self._seconds = inf
        self._shield_until = inf if shield else -inf
        self._shield_timer: Timer | None = None
        self._timer: Timer | None = None
        self._thread: VirtualThread | None = None
        self._left = False
        self.cancelled_caught = False
        # The group whose scope this is.
        self.group: Any = None

    def __repr__(self) -> str:
        deadline = "" if self._deadline == inf else f" deadline={self._deadline:.3f}"
        state = "left" if self._left else "active" if self._thread else "new"
        return f"<CancelScope {state}{' cancelled' if self.cancel_called else ''}{deadline}>"

    # --- entering and leaving

    def __enter__(self) -> CancelScope:
        thread = started_here()
        if self._thread is not None or self._left:
            raise ScopeMisuse(f"{self!r} was entered before; a scope is used once, so make a new one")
        self._enter(thread)
        return self

    def _enter(self, thread: VirtualThread) -> None:
        if self._seconds < inf:
            self._deadline = min(self._deadline, thread.scheduler.clock.now() + self._seconds)
        if thread.pending:
            # Entered during the cleanup of a cancelled thread, in its grace, it is part of the cleanup: it has the
            # time that the thread has, with its members, and its own deadline counts within.
            self._shield_until = max(self._shield_until, thread.grace_until())
        self._thread = thread
        self._attach(thread.innermost)
        thread.innermost = self
        thread.refresh()
        self._arm()
        self._arm_shield()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self._leave()
        if isinstance(error, Cancelled) and self._absorbs():
            self.cancelled_caught = True
            return True
        return False

    def _leave(self) -> None:
        thread = running()
        if thread is None or thread.innermost is not self:
            raise self.misused(thread)
        self.leave_quietly(thread)
        thread.refresh()

    def leave_quietly(self, thread: VirtualThread) -> None:
        self._left = True
        self._disarm()
        self._detach()
        assert self._parent is not None
        thread.innermost = self._parent
        thread.forget_delivery(self)

    def misused(self, thread: VirtualThread | None) -> ScopeMisuse:
        """What to raise because `thread` leaves this scope, which is not its innermost one."""
        misuse = ScopeMisuse(
            f"{self.group or self!r} is left, but the innermost scope of {thread!r} is "
            f"{thread and thread.innermost!r}; leave groups and scopes in the reverse order of entering, in the "
            "thread that entered them"
        )
        if thread is not None and thread is self._thread and not self._left:
            # The program goes on outside, so the thread must not stay inside.
            assert self._parent is not None
            thread.abandon_scopes(self._parent)
        return misuse

    def _absorbs(self) -> bool:
        """Whether a `Cancelled` that leaves the block ends here: no scope around is cancelled and not hidden."""
        return self._affected_by is self

    # --- cancelling

    def cancel(self, reason: str | None = None) -> None:
        """Cancel everything inside. Not a checkpoint; thread-safe; a second call does nothing.

        Args:
            reason: a sentence for `Cancelled.reason`.
        """
        self._request_cancel(reason or f"{self!r} was cancelled", running())

    def expire(self) -> None:
        """The deadline or the end of the shield has come (called by the scheduler)."""
        self._timer = None
        self._request_cancel(f"the deadline of {self!r} passed", self)

    @property
    def deadline(self) -> float:
        """Absolute time on `vthreads.now()`; settable, also while active, from any OS thread."""
        return self._deadline

    @deadline.setter
    def deadline(self, deadline: float | None) -> None:
        self._deadline = checked_seconds(deadline, "deadline")
        self._seconds = inf
        thread = self._thread
        if thread is None or self._left:
            return
        if thread.is_here():
            self._arm()
        else:
            thread.scheduler.post(self._arm)

    def _arm(self) -> None:
        self._disarm_deadline()
        if self._deadline == inf or self.cancel_called or self._left:
            return
        assert self._thread is not None
        scheduler = self._thread.scheduler
        if self._deadline <= scheduler.clock.now():
            self.expire()
        else:
            self._timer = scheduler.timers.add(self._deadline, self)

    def _disarm_deadline(self) -> None:
        if self._timer is not None:
            assert self._thread is not None
            self._thread.scheduler.timers.cancel(self._timer)
            self._timer = None

    def _disarm(self) -> None:
        self._disarm_deadline()
        if self._shield_timer is not None:
            assert self._thread is not None
            self._thread.scheduler.timers.cancel(self._shield_timer)
            self._shield_timer = None

    # --- shielding

    @property
    def shield(self) -> bool:
        """Whether the cancellation of enclosing scopes is hidden from the inside; settable."""
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
            self._shield_timer = self._thread.scheduler.timers.add(self._shield_until, _ShieldEnd(self))

    def drop_shield(self) -> None:
        """Let the cancellation of enclosing scopes in from now on."""
        self._shield_timer = None
        self._shield_until = -inf
        self._spread()

    def survive_fork(self) -> None:
        """In the child of a fork nothing is inside but the thread, and the timers belong to another scheduler."""
        if self.group is not None:
            self.group.survive_fork()
        self._children = {child: None for child in self._children or () if isinstance(child, CancelScope)}
        self._affected_by = self._find_affecting()
        self._timer = self._shield_timer = None
        self._arm()
        self._arm_shield()

    def _thread_inside(self) -> VirtualThread | None:
        thread = self._thread
        return thread if thread is not None and thread.innermost is self else None


class _ShieldEnd:
    """Timer owner: a bounded shield is over."""

    __slots__ = ("_scope",)

    def __init__(self, scope: CancelScope) -> None:
        self._scope = scope

    def expire(self) -> None:
        self._scope.drop_shield()


def remaining() -> float:
    """Seconds until the effective deadline: the earliest of the enclosing scopes that no shield hides.

    `inf` without a deadline, 0.0 when it has passed or the scope is cancelled. Not a checkpoint; on a plain OS thread
    always `inf`.
    """
    thread = running()
    if thread is None:
        return inf
    if thread.innermost._affected_by is not None:
        return 0.0
    deadline = inf
    node: CancelNode | None = thread.innermost
    while node is not None:
        if isinstance(node, CancelScope):
            deadline = min(deadline, node.deadline)
        if node._shielded():
            break
        node = node._parent
    return max(0.0, deadline - thread.scheduler.clock.now())
