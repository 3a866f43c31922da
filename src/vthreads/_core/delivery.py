"""Whom cancellation and interrupts are delivered to, and what a checkpoint raises.

Everything that can be raised at a checkpoint is decided here: level cancellation with its cleanup grace, and
interrupts. Nothing here knows what runs, nor to whom it belongs.
"""

from __future__ import annotations

import sys
import warnings
from collections import Counter, deque
from collections.abc import Callable
from math import inf
from typing import Any

from ..errors import Cancelled
from .cancel import CancelNode
from .current import running
from .engine import ABORTED, TIMED_OUT, Fiber, State
from .originals import get_ident
from .spawn_site import first_frame_outside

__all__ = ["Recipient", "deferred_delivery", "resumed_delivery"]

# A `Cancelled` swallowed this often at one place is a bug worth a warning.
REPEATS_BEFORE_WARNING = 100
# Where that was said already.
_warned_places: set[tuple[str, int]] = set()

# Names of this module: an attribute of an enum class is slow to get.
RUNNING, PARKED, ENDED = State.RUNNING, State.PARKED, State.ENDED


class _Delivery:
    """The cancellation of one scope, as one thread has seen it."""

    __slots__ = ("error", "places", "repeats", "until")

    def __init__(self, until: float) -> None:
        # The newest exception: what the thread is handling if it is cleaning up. Cleanup may block until `until`.
        self.error: Cancelled | None = None
        self.until = until
        self.repeats = -1
        # Where it was swallowed, and how often; made when it first is.
        self.places: Counter[tuple[str, int]] | None = None


class _PendingInterrupt:
    __slots__ = ("error", "polite")

    def __init__(self, error: BaseException, polite: bool) -> None:
        self.error = error
        # Waits for shields and for cleanup, as the first Ctrl-C does.
        self.polite = polite


class Recipient(Fiber, CancelNode):
    """A fiber that can be cancelled and interrupted. Its subclass has the places for what is set here."""

    __slots__ = ()

    # The places of a recipient, for its subclass.
    DELIVERY_SLOTS = (
        *CancelNode.NODE_SLOTS,
        "_deferred",
        "_deliveries",
        "_interrupts",
        "_listens",
        "_patience",
        "_roused_by",
        "hurried",
        "innermost",
    )

    def _init_delivery(self) -> None:
        self._init_node()
        # The innermost scope entered, or the thread itself.
        self.innermost: CancelNode = self
        self._interrupts: deque[_PendingInterrupt] | None = None
        self._deliveries: dict[CancelNode, _Delivery] | None = None
        self._patience = -inf
        # The cancelled node for which a wait was withdrawn.
        self._roused_by: CancelNode | None = None
        self._deferred = 0
        self._listens = True
        # Set by the second Ctrl-C: shields and cleanup have no time left.
        self.hurried = False

    def is_here(self) -> bool:
        """Whether the thread lives on the OS thread that asks."""
        return get_ident() == self.scheduler.ident

    # --- cancelled and interrupted

    def interrupt_with(self, error: BaseException, *, polite: bool) -> bool:
        """`interrupt`; a polite one waits until shields and cleanup are over."""
        if self.state is ENDED:
            return False
        if self._interrupts is None:
            self._interrupts = deque()
        self._interrupts.append(_PendingInterrupt(error, polite))
        self.notice()
        return True

    def notice(self) -> None:
        """Something may have to be raised here. Thread-safe."""
        self.pending = True
        if not self.is_here():
            # Said again over there, where the thread may just have found that nothing is pending.
            self.scheduler.post(self.notice)
        elif self.state is PARKED:
            self.rouse()
        elif self.state is RUNNING:
            # A signal handler or finalizer may ask for this between the last look of a wait and the park.
            self.scheduler.post(self._rouse_here)

    def refresh(self) -> None:
        """The innermost scope is another one now, or an interrupt has been taken."""
        self._patience = -inf
        # A node keeps its group, and by that the failures and whatever these worked on.
        self._roused_by = None
        self.pending = self.innermost._affected_by is not None or bool(self._interrupts)

    def forget_delivery(self, node: CancelNode) -> None:
        if self._deliveries is not None:
            self._deliveries.pop(node, None)

    def hurry(self) -> None:
        """The time for shields and cleanup is over."""
        self.hurried = True
        self.notice()

    # --- checkpoints

    def raise_due(self) -> None:
        """Raise what is due at this checkpoint, if anything is."""
        if self._deferred:
            return
        error = self._due()
        if error is not None:
            if isinstance(error, Cancelled):
                self._yield_if_repeated()
            try:
                raise error
            finally:
                # It refers to this frame by its traceback; a cycle would keep what all the frames refer to.
                del error

    def park_pending(self, abort: Callable[[], bool] | None, deadline: float) -> Any:
        """`park` while something is pending: it may be due now, or have to wait for the end of a shield."""
        scheduler = self.scheduler
        if self._is_due():
            # It came between the check and here (a signal handler).
            if abort is not None and not abort():
                return self.park_through()
            answer = ABORTED
        else:
            self._roused_by = self.innermost._affected_by
            limit = inf if self._deferred or self._roused_by is None else self._patience
            answer = scheduler.park(abort, min(deadline, limit))
        if answer is ABORTED or (answer is TIMED_OUT and deadline > scheduler.clock.now()):
            self.raise_aborted()
        return answer

    def raise_aborted(self) -> None:
        """Raise what the wait was withdrawn for."""
        roused_by, self._roused_by = self._roused_by, None
        raise self._due() or self._due_before(roused_by)

    def park_through(self) -> Any:
        """Park until unparked, whatever is pending."""
        self._deferred += 1
        try:
            return self.scheduler.park()
        finally:
            self._deferred -= 1

    def park_for_interrupts(self, abort: Callable[[], bool]) -> Any:
        """Park until unparked or interrupted; cancellation waits. For the end of a group, which knows what to do."""
        self._listens = False
        try:
            if self._has_interrupt():
                if not abort():
                    return self.park_through()
                answer = ABORTED
            else:
                answer = self.scheduler.park(abort)
        finally:
            self._listens = True
        if answer is ABORTED:
            raise self._take_interrupt()
        return answer

    def end_deferral(self) -> None:
        """Deliver again, whatever `deferred_delivery` is around: the running code will not return to it."""
        self._deferred = 0

    def may_be_roused(self) -> bool:
        # Before its first run it is at no checkpoint, so an interrupt has to wait for one.
        return self._is_due() if self._greenlet is not None else self._affected_by is not None

    # --- what is due

    def _is_due(self) -> bool:
        """Whether a checkpoint would raise now. Asked while parked, so it goes by what was found when it parked."""
        if self._deferred:
            return False
        if self._listens and self.innermost._affected_by is not None and not self._in_patience():
            self._roused_by = self.innermost._affected_by
            return True
        return self._has_interrupt()

    def _in_patience(self) -> bool:
        return self._patience > self.scheduler.clock.now() and not self.hurried

    def _due(self) -> BaseException | None:
        """What a checkpoint has to raise now. Asked by the thread itself."""
        node = self.innermost._affected_by
        if node is not None:
            self._patience = self._grace_end(node)
            if not self._in_patience():
                return self._deliver(node)
        if self._has_interrupt():
            return self._take_interrupt()
        if node is None and not self._interrupts:
            self.refresh()
        return None

    def _due_before(self, roused_by: CancelNode | None) -> BaseException:
        """What the wait was withdrawn for. A shield that another thread put up since then is too late."""
        if self._interrupts:
            return self._take_interrupt()
        assert roused_by is not None, f"{self!r} was roused for nothing"
        return self._deliver(roused_by)

    def grace_until(self) -> float:
        """Until when this thread may still block for its cleanup; `-inf` if it is not cleaning up."""
        node = self.innermost._affected_by
        return -inf if node is None else self._grace_end(node)

    def _grace_end(self, affecting: CancelNode) -> float:
        """Until when the thread may block although `affecting` is cancelled, since it is cleaning up because of it.

        Or because of a scope inside, which came first. Found by identity on the chain of exceptions being handled,
        which each greenlet has for itself.
        """
        if not self._deliveries or self.hurried:
            return -inf
        deliveries = self._deliveries.items()
        mine = {id(delivery.error): delivery.until for node, delivery in deliveries if node.is_inside(affecting)}
        until = -inf
        handled, seen = sys.exc_info()[1], set()
        while handled is not None and id(handled) not in seen:
            until = max(until, mine.get(id(handled), -inf))
            seen.add(id(handled))
            handled = handled.__context__
        return until

    def _deliver(self, node: CancelNode) -> Cancelled:
        if self._deliveries is None:
            self._deliveries = {}
        delivery = self._deliveries.get(node)
        if delivery is None:
            grace = 0.0 if self.hurried else node._grace()
            delivery = self._deliveries[node] = _Delivery(self.scheduler.clock.now() + grace)
        delivery.error = node._new_cancelled()
        delivery.repeats += 1
        return delivery.error

    def _yield_if_repeated(self) -> None:
        """Code that swallows `Cancelled` in a loop must not keep its carrier to itself, nor stay unnoticed."""
        node = self.innermost._affected_by
        delivery = self._deliveries and node and self._deliveries.get(node)
        if not delivery or delivery.repeats < 1:
            return
        self.scheduler.yield_now()
        frame = first_frame_outside(sys._getframe(2))
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

    def _has_interrupt(self) -> bool:
        if not self._interrupts:
            return False
        return not self._interrupts[0].polite or self.hurried or not self.is_protected()

    def is_protected(self) -> bool:
        """Whether a polite interrupt has to wait: inside a shield, or during cleanup."""
        if self.innermost._affected_by is not None and self._in_patience():
            return True
        node: CancelNode | None = self.innermost
        while node is not None:
            if node._shielded():
                return True
            node = node._parent
        return False

    def _take_interrupt(self) -> BaseException:
        assert self._interrupts
        interrupt = self._interrupts.popleft()
        self.refresh()
        return interrupt.error


class deferred_delivery:  # noqa: N801 - used like a function: `with deferred_delivery():`
    """While inside, no checkpoint of this virtual thread raises; what is pending comes after it.

    For calls that give something back (a permit, a lock, an item) and must not lose it.
    """

    __slots__ = ("_thread",)

    def __enter__(self) -> None:
        self._thread = running()
        if self._thread is not None:
            self._thread._deferred += 1

    def __exit__(self, *_: object) -> None:
        if self._thread is not None:
            self._thread._deferred -= 1


class resumed_delivery:  # noqa: N801 - likewise
    """While inside, one `deferred_delivery` around it does not hold: for the one wait in it that may be given up."""

    __slots__ = ("_thread",)

    def __enter__(self) -> None:
        thread = running()
        self._thread = thread if thread is not None and thread._deferred else None
        if self._thread is not None:
            self._thread._deferred -= 1

    def __exit__(self, *_: object) -> None:
        if self._thread is not None:
            self._thread._deferred += 1
