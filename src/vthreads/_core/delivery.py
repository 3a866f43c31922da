"""Delivery of cancellation and interrupts: decides what a checkpoint of a virtual thread raises.

The rules are the table in `delivery_table`. This module determines the state and the condition of a thread, reads the
table, and returns the exception to raise. It does not depend on the code of the thread or on its group.
"""

from __future__ import annotations

import sys
import warnings
import weakref
from collections import Counter, deque
from collections.abc import Callable, Mapping
from math import inf
from types import FrameType
from typing import Any

from ..errors import Cancelled, Interrupted
from .cancel import CancelNode
from .delivery_table import ACTIONS, RAISING, WITH_CLEANUP, Action, Condition, Pending
from .engine import ABORTED, TIMED_OUT, Fiber, Scheduler, State, running
from .exceptions import is_a, related_to
from .originals import get_ident
from .repeated import repeated_in
from .spawn_site import first_frame_outside

__all__ = ["Recipient", "deferred_delivery", "resumed_delivery"]

# A `Cancelled` that is swallowed this often at the same place is probably a bug, so issue a warning.
REPEATS_BEFORE_WARNING = 100
# Places for which the warning was issued.
_warned_places: set[tuple[str, int]] = set()

# As names of this module, because reading an attribute of an enum class is slow.
RUNNING, PARKED, ENDED = State.RUNNING, State.PARKED, State.ENDED
NOTHING, POLITE, PLAIN = Pending.NOTHING, Pending.POLITE, Pending.PLAIN
CANCELLED, CANCELLED_AND_INTERRUPTED = Pending.CANCELLED, Pending.CANCELLED_AND_INTERRUPTED
FREE, SHIELDED, HURRIED, NOT_RUN, DEFERRED = Condition
CANCEL, TAKE_OLDEST, TAKE_PLAIN, WAIT = Action.CANCEL, Action.OLDEST, Action.PLAIN, Action.WAIT


# The function that runs a finalizer registered by `weakref.finalize`.
_run_finalizer = weakref.finalize.__call__.__code__


def _in_finalizer(frame: FrameType | None) -> bool:
    """Return whether `frame` was called by a finalizer, in which no caller can handle an exception."""
    while frame is not None and frame.f_code is not _run_finalizer and frame.f_code.co_name != "__del__":
        frame = frame.f_back
    return frame is not None


class _Delivery:
    """The delivery of the cancellation of a scope to a thread."""

    __slots__ = ("count", "error", "places", "until")

    def __init__(self, until: float) -> None:
        # The newest exception: the thread is cleaning up while it handles this. Cleanup may block until `until`.
        self.error: Cancelled | None = None
        self.until = until
        self.count = 0
        # The places where it was swallowed, with counts; created on demand.
        self.places: Counter[tuple[str, int]] | None = None


class _PendingInterrupt:
    __slots__ = ("error", "polite")

    def __init__(self, error: BaseException, polite: bool) -> None:
        self.error = error
        # Whether it waits for shields and cleanup, like the first Ctrl-C.
        self.polite = polite


class Recipient(Fiber, CancelNode):
    """A fiber that can be cancelled and interrupted. The subclass declares the slots for the fields set here."""

    __slots__ = ()

    _scheduler: Scheduler

    # The slots for the subclass to declare, because a virtual thread has a second base with slots.
    _DELIVERY_SLOTS = (
        *CancelNode._NODE_SLOTS,
        "_deferred",
        "_deliveries",
        "_interrupts",
        "_listens",
        "_cleanup_ends_at",
        "_roused_by",
        "_hurried",
        "_innermost",
    )

    @repeated_in("_core/compiled/members.pxi")
    def _init_delivery(self) -> None:
        self._init_node()
        # The innermost scope entered, or the thread itself.
        self._innermost: CancelNode = self
        self._interrupts: deque[_PendingInterrupt] | None = None
        self._deliveries: dict[CancelNode, _Delivery] | None = None
        self._cleanup_ends_at = -inf
        # The cancelled node for which a wait was withdrawn.
        self._roused_by: CancelNode | None = None
        self._deferred = 0
        self._listens = True
        # Set by the second Ctrl-C: shields and cleanup have no time left.
        self._hurried = False

    def _is_here(self) -> bool:
        """Return whether the thread belongs to the calling OS thread."""
        return get_ident() == self._scheduler.ident

    # --- cancelled and interrupted

    def _interrupt_with(self, error: BaseException, *, polite: bool) -> bool:
        """Interrupt the thread; a polite interrupt waits until shields and cleanup are over."""
        if self.state is ENDED:
            return False
        self._append_interrupt(_PendingInterrupt(error, polite))
        self._notice()
        return True

    def _append_interrupt(self, interrupt: _PendingInterrupt) -> deque[_PendingInterrupt]:
        """Append to the pending interrupts, and return them."""
        # Keep a local reference: the thread may end meanwhile and drop its own.
        interrupts = self._interrupts
        if interrupts is None:
            interrupts = self._interrupts = deque()
        interrupts.append(interrupt)
        return interrupts

    def _interrupt_wait(self, error: BaseException) -> bool:
        """Raise `error` in the wait of this parked thread; call it on the carrier. Return whether it will be raised.

        If another OS thread has just granted the wait, it cannot be withdrawn, although the thread is still parked.
        Then the thread continues with what it got, and `error` is dropped: it must not come at a later checkpoint.
        """
        if self.state is not PARKED:
            return False
        interrupt = _PendingInterrupt(error, polite=False)
        interrupts = self._append_interrupt(interrupt)
        self._pending = True
        self._rouse()
        if self.state is not PARKED:
            return True
        interrupts.remove(interrupt)
        self._pending = self._innermost._affected_by is not None or bool(interrupts)
        return False

    def _notice(self) -> None:
        """Check what is pending, because it may have changed. Thread-safe."""
        self._pending = True
        if not self._is_here():
            # Repeat it on the carrier: the thread may just have found that nothing is pending, and be about to park.
            self._scheduler.post(self._notice)
        elif self.state is PARKED:
            self._rouse()
        elif self.state is RUNNING:
            # A signal handler or finalizer may call this between the last check of a wait and its park, which would
            # then not see the change. So check again when the thread has parked.
            self._scheduler.post(self._rouse_here)

    def _refresh(self) -> None:
        """Update the state after a change of the innermost scope or of the interrupts."""
        self._cleanup_ends_at = -inf
        # Drop the node: it refers to its group, and so to failures and the objects in their frames.
        self._roused_by = None
        self._pending = self._innermost._affected_by is not None or bool(self._interrupts)

    def _is_in_cleanup(self) -> bool:
        """Return whether the cancellation that affects this thread has been delivered to it."""
        node = self._innermost._affected_by
        return node is not None and self._deliveries is not None and node in self._deliveries

    def _forget_delivery(self, node: CancelNode) -> None:
        if self._deliveries is not None:
            self._deliveries.pop(node, None)

    @repeated_in("_core/compiled/thread.pxi")
    def _forget_errors(self) -> None:
        """Drop the delivered exceptions, but keep the time until which cleanup may block."""
        for delivery in (self._deliveries or {}).values():
            delivery.error = None

    def _hurry(self) -> None:
        """End the time for shields and cleanup."""
        self._hurried = True
        self._notice()

    # --- checkpoints

    def _raise_due(self) -> None:
        """Raise the exception that is due at this checkpoint, if any."""
        if self._deferred:
            # The table has no action for this condition, so the state is not needed.
            return
        # A checkpoint that raises counts as running: a loop over such calls would keep the carrier to itself.
        self._give_way()
        error = self._take_due()
        if error is not None:
            if is_a(error, Cancelled):
                self._yield_if_repeated()
            try:
                raise error
            finally:
                # The traceback of the error refers to this frame. Break the cycle, which would keep all frames alive.
                del error
        if self._innermost._affected_by is None and not self._interrupts:
            self._refresh()

    def _park_pending(self, abort: Callable[[], bool] | None, deadline: float) -> Any:
        """`_park` while something is pending, which may be due now, or must wait for the end of a shield."""
        scheduler = self._scheduler
        self._cleanup_ends_at = self._cleanup_until()
        action = self._action()
        if action in RAISING:
            # A signal handler has interrupted the thread between the check and here.
            if abort is not None and not abort():
                return self._park_through()
            self._roused_by = self._innermost._affected_by
            answer = ABORTED
            # The wait ends without a park, so the next wait is not inside this one.
            self._has_begun_to_wait = False
        elif action is WAIT:
            self._roused_by = self._innermost._affected_by
            answer = scheduler.park(abort, min(deadline, self._cleanup_ends_at))
        else:
            answer = scheduler.park(abort, deadline)
        if answer is ABORTED or (answer is TIMED_OUT and deadline > scheduler.clock.now()):
            self._raise_aborted()
        return answer

    def _raise_aborted(self) -> None:
        """Raise the exception for which the wait was withdrawn."""
        roused_by, self._roused_by = self._roused_by, None
        raise self._take_due_after(roused_by)

    def _park_through(self) -> Any:
        """Park until unparked, whatever is pending."""
        self._deferred += 1
        try:
            return self._scheduler.park()
        finally:
            self._deferred -= 1

    def _park_for_interrupts(self, abort: Callable[[], bool]) -> Any:
        """Park until unparked or interrupted; defer cancellation. For the end of a group, which handles it itself."""
        self._listens = False
        try:
            if self._pending:
                self._cleanup_ends_at = self._cleanup_until()
            if self._action() in RAISING:
                if not abort():
                    return self._park_through()
                answer = ABORTED
                self._has_begun_to_wait = False
            else:
                answer = self._scheduler.park(abort)
            if answer is ABORTED:
                raise self._take_due_after(None)
        finally:
            self._listens = True
        return answer

    def _end_deferral(self) -> None:
        """End all `deferred_delivery` blocks: the running code will not return to them."""
        self._deferred = 0

    def _may_be_roused(self) -> bool:
        return self._action() in RAISING

    def _rouse_here(self) -> None:
        if self.state is PARKED:
            # Record it before the wait is withdrawn: a shield that another thread sets later has no effect on it.
            self._roused_by = self._innermost._affected_by
            Fiber._rouse_here(self)

    # --- what is due

    def _action(self) -> Action:
        """Return the action of a checkpoint; for a parked thread, whether its wait must end. Changes nothing."""
        row = ACTIONS[self._pending_state()]
        return row[self._condition(row)]

    def _pending_state(self) -> Pending:
        found = NOTHING
        if self._interrupts:
            # Iterate over a copy, because another OS thread may add an interrupt meanwhile.
            found = POLITE if all(interrupt.polite for interrupt in list(self._interrupts)) else PLAIN
        if not self._listens or self._innermost._affected_by is None:
            return found
        if self._cleanup_ends_at > -inf and self._in_cleanup():
            return WITH_CLEANUP[found]
        return CANCELLED if found is NOTHING else CANCELLED_AND_INTERRUPTED

    def _condition(self, row: Mapping[Condition, Action]) -> Condition:
        """Return the condition for `row`. Searches for shields only if they change the action."""
        if self._deferred:
            return DEFERRED
        if self._greenlet is None and self.state is not RUNNING:
            return NOT_RUN
        if self._hurried:
            return HURRIED
        return SHIELDED if row[SHIELDED] is not row[FREE] and self._is_protected_here() else FREE

    def _in_cleanup(self) -> bool:
        """Return whether the cleanup that was found at the last check may still block."""
        return self._cleanup_ends_at > self._scheduler.clock.now()

    def _is_protected_here(self) -> bool:
        # The end of a group has passed the cancellation on to its members, so it is not pending in the thread. The
        # grace still runs, and holds the first Ctrl-C back like a shield.
        return self._is_shielded() or (not self._listens and self._in_cleanup())

    def _is_shielded(self) -> bool:
        node: CancelNode | None = self._innermost
        while node is not None:
            if node._shielded():
                return True
            node = node._parent
        return False

    def _is_protected(self) -> bool:
        """Return whether the first Ctrl-C must wait: in a shield or during cleanup. Called by the thread itself."""
        return self._is_shielded() or self._grace_until() > self._scheduler.clock.now()

    def _grace_until(self) -> float:
        """Return until when this thread may block for its cleanup; `-inf` if it is not cleaning up."""
        return -inf if self._hurried else self._cleanup_until()

    def _cleanup_until(self) -> float:
        """Return until when the thread may block although it is cancelled, because it cleans up after that.

        Cleanup is code that handles a `Cancelled` of the scope, or of a scope inside that was cancelled first. It is
        recognized by the identity of the exceptions being handled, which CPython stores per greenlet. A flag set at
        delivery would not do: the program leaves an `except` or `finally` block without calling the runtime.
        """
        affecting = self._innermost._affected_by
        if affecting is None or not self._deliveries:
            return -inf
        deliveries = self._deliveries.items()
        mine = {id(delivery.error): delivery.until for node, delivery in deliveries if node._is_inside(affecting)}
        handled = list(related_to(sys.exc_info()[1]))
        if any(is_a(error, GeneratorExit) for error in handled) or _in_finalizer(sys._getframe()):
            # A generator is closed or an object finalized, so this is cleanup. If a `Cancelled` was the reason, it
            # still propagates and is not among the handled exceptions. So use the longest grace.
            return max(mine.values(), default=-inf)
        return max((mine.get(id(error), -inf) for error in handled), default=-inf)

    # --- taking it

    def _take_due(self) -> BaseException | None:
        """Remove and return the exception that a checkpoint must raise now, if any. For the thread itself."""
        self._cleanup_ends_at = self._cleanup_until()
        action = self._action()
        if action is CANCEL:
            assert self._innermost._affected_by is not None
            return self._deliver(self._innermost._affected_by)
        if action is TAKE_OLDEST or action is TAKE_PLAIN:
            return self._take_interrupt(past_polite=action is TAKE_PLAIN)
        return None

    def _take_due_after(self, roused_by: CancelNode | None) -> BaseException:
        """Return what is due, else the exception for the withdrawn wait, even if another thread set a shield since."""
        due = self._take_due()
        # Compare with None, because an exception may be false.
        if due is None:
            due = self._take_interrupt()
        if due is not None:
            return due
        if roused_by is not None:
            return self._deliver(roused_by)
        # A trace function or a finalizer has come since, and its own checkpoint has raised the exception.
        return Interrupted(f"{self!r} was interrupted, and a trace function or a finalizer has caught the exception")

    def _take_interrupt(self, past_polite: bool = False) -> BaseException | None:
        """Remove and return the oldest interrupt; None if a trace function or a finalizer has taken it meanwhile."""
        for interrupt in list(self._interrupts or ()):
            if past_polite and interrupt.polite:
                continue
            try:
                self._interrupts.remove(interrupt)  # type: ignore[union-attr]  # not None, because it had one
            except ValueError:
                # Taken since the list was copied.
                continue
            self._refresh()
            return interrupt.error
        return None

    def _deliver(self, node: CancelNode) -> Cancelled:
        if self._deliveries is None:
            self._deliveries = {}
        delivery = self._deliveries.get(node)
        if delivery is None:
            grace = 0.0 if self._hurried else node._grace()
            delivery = self._deliveries[node] = _Delivery(self._scheduler.clock.now() + grace)
        delivery.error = node._new_cancelled()
        delivery.count += 1
        return delivery.error

    def _yield_if_repeated(self) -> None:
        """Yield and warn if code swallows `Cancelled` in a loop: it must neither block its carrier nor go unnoticed."""
        node = self._innermost._affected_by
        if not self._deliveries or node is None:
            return
        delivery = self._deliveries.get(node)
        if delivery is None or delivery.count < 2:
            return
        self._scheduler._yield_now()
        # From this frame on: compiled callers may have left no other one.
        frame = first_frame_outside(sys._getframe())
        if frame is None:
            return
        place = (frame.f_code.co_filename, frame.f_lineno)
        delivery.places = delivery.places or Counter()
        delivery.places[place] += 1
        if delivery.places[place] >= REPEATS_BEFORE_WARNING and place not in _warned_places:
            _warned_places.add(place)
            warnings.warn_explicit(
                f"{self!r} swallowed Cancelled {REPEATS_BEFORE_WARNING} times here and goes on; "
                "catch Exception instead of everything, or raise it again",
                RuntimeWarning,
                *place,
            )


class deferred_delivery:  # noqa: N801 - used like a function: `with deferred_delivery():`
    """Defer delivery in the block: no checkpoint of this virtual thread raises; pending exceptions come afterwards.

    For calls that give something back (a permit, a lock, an item) and must not lose it.
    """

    __slots__ = ("_thread",)

    def __enter__(self) -> None:
        self._thread: Recipient | None = running()
        if self._thread is not None:
            self._thread._deferred += 1

    def __exit__(self, *_: object) -> None:
        if self._thread is not None:
            self._thread._deferred -= 1


class resumed_delivery:  # noqa: N801 - likewise
    """Suspend one surrounding `deferred_delivery` in the block, for the one wait in it that can be cancelled."""

    __slots__ = ("_thread",)

    def __enter__(self) -> None:
        thread: Recipient | None = running()
        self._thread = thread if thread is not None and thread._deferred else None
        if self._thread is not None:
            self._thread._deferred -= 1

    def __exit__(self, *_: object) -> None:
        if self._thread is not None:
            self._thread._deferred += 1
