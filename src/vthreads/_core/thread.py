"""The virtual thread: a fiber with a name, a place in the cancel tree, and checkpoints.

To the code that runs in it, it is a `threading.Thread`. Everything that can be raised at a checkpoint is decided here:
level cancellation with its cleanup grace, and interrupts. This file does not know groups; what owns a thread is
told of its outcome by `settle` and of its end by `left`.
"""

from __future__ import annotations

import sys
import threading
import traceback
import warnings
from collections import Counter, deque
from collections.abc import Callable
from contextvars import Context
from itertools import count
from math import inf
from typing import Any, Protocol

from ..errors import Cancelled, Interrupted
from .cancel import CancelNode, CancelScope
from .current import running
from .engine import ABORTED, TIMED_OUT, Fiber, Scheduler, State, compiled
from .originals import allocate_lock, get_ident
from .spawn_site import SpawnSite, describe_sites, first_frame_outside
from .wait_queue import WaitQueue, waiter_here

__all__ = ["VirtualThread", "deferred_delivery", "resumed_delivery"]

# A `Cancelled` swallowed this often at one place is a bug worth a warning.
REPEATS_BEFORE_WARNING = 100
# Where that was said already.
_warned_places: set[tuple[str, int]] = set()

idents = count(1)
_making = allocate_lock()

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


class Owner(Protocol):
    """What a virtual thread belongs to."""

    name: str

    def settle(self, thread: VirtualThread, value: Any, error: BaseException | None) -> None: ...

    def left(self, thread: VirtualThread) -> None: ...


# What a virtual thread keeps.
PLACES = (
    *CancelNode.NODE_SLOTS,
    "_call",
    "_deferred",
    "_deliveries",
    "_interrupts",
    "_joiners",
    "_listens",
    "_name",
    "_patience",
    "_roused_by",
    "future",
    "group",
    "hurried",
    "innermost",
    "locals",
    "queued",
    "sites",
    "thread_ident",
)


class VirtualThread(Fiber, CancelNode, threading.Thread):
    """What `spawn` starts: a thread that costs a few KiB and parks instead of blocking its carrier.

    Made by `ThreadGroup.spawn` and `vthreads.spawn`, not by hand. To its users it is a `threading.Thread`, which
    `threading.current_thread()` returns inside it.

    Attributes:
        name: a label, settable.
        ident: a number of its own among all threads, virtual or not, of the process.
        group: the group that owns it; None for a root thread.
        context: the `contextvars.Context` that it runs in.
        state: "new", "ready", "running", "parked" or "ended", as a `State`.
    """

    __slots__ = tuple(place for place in PLACES if not hasattr(Fiber, place))

    def __init__(
        self,
        scheduler: Scheduler,
        context: Context | None,
        group: Any = None,
        call: tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]] | None = None,
        sites: tuple[SpawnSite, ...] = (),
    ) -> None:
        # threading.Thread.__init__ is left out on purpose: it would make locks and events that nobody uses.
        Fiber.__init__(self, scheduler, context)
        self._init_node()
        self._call = call
        self._name: str | None = None
        self.group = group
        self.sites = sites
        self.future: Any = None
        self.thread_ident = next(idents)
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
        self._joiners: WaitQueue | None = None
        # What `local` knows the thread by; its data go with it.
        self.locals: Any = None
        # Whether it waits, or waited, for a permit of its group before its first run.
        self.queued = False

    # --- what a threading.Thread tells

    @property
    def name(self) -> str:
        return self._name or f"virtual-{self.thread_ident}"

    @name.setter
    def name(self, name: str) -> None:
        self._name = str(name)

    @property
    def ident(self) -> int:
        return self.thread_ident

    @property
    def native_id(self) -> int:
        """The kernel's number of the carrier that called; a virtual thread has none of its own."""
        return threading.get_native_id()

    @property
    def daemon(self) -> bool:
        return False

    @daemon.setter
    def daemon(self, daemon: bool) -> None:
        raise RuntimeError(f"{self!r} runs already; a virtual thread belongs to its group, which decides how it ends")

    def is_alive(self) -> bool:
        """Whether the thread has not ended yet. Not a checkpoint; thread-safe."""
        return self.state is not ENDED

    def __repr__(self) -> str:
        owner = f" of group {self.group.name!r}" if self.group is not None else ""
        return f"<VirtualThread {self.name!r} {self.state.value}{owner}>"

    def join(self, timeout: float | None = None) -> None:
        """Wait until the thread has ended. A checkpoint, unless the timeout is 0; thread-safe.

        Its exception is not raised here; ask its `Future`. As with `threading`, `is_alive()` tells afterwards whether
        the timeout came first.

        Args:
            timeout: seconds, or None for no limit.

        Raises:
            RuntimeError: a thread cannot join itself.
        """
        if running() is self:
            raise RuntimeError(f"{self!r} cannot join itself")
        if timeout is not None and timeout <= 0:
            return
        joiner = waiter_here()
        if isinstance(joiner, VirtualThread):
            joiner.check()
        with _making:
            joiners = self._joiners = self._joiners or WaitQueue()
        joiners.add(joiner)
        if self.state is ENDED and joiners.withdraw(joiner):
            # It ended before the joiner stood in the queue.
            return
        joiners.park(joiner, timeout)

    def stack(self) -> traceback.StackSummary:
        """Tell where the thread is, outermost call first, without the runtime's own frames; empty before its first run.

        Not a checkpoint. Meant for the thread's own carrier; from elsewhere the answer may be torn.
        """
        frame = first_frame_outside(self.frame())
        frames = []
        while frame is not None:
            frames.append((frame, frame.f_lineno))
            frame = first_frame_outside(frame.f_back)
        return traceback.StackSummary.extract(reversed(frames), lookup_lines=False)

    # --- running

    def is_here(self) -> bool:
        """Whether the thread lives on the OS thread that asks."""
        return get_ident() == self.scheduler.ident

    @compiled
    def run(self) -> None:
        """Run the function and hand the outcome to the owner (called by the engine)."""
        value = error = None
        if self.queued:
            self.group.dequeued(self, granted=self._take_wake() is not ABORTED)
        try:
            if self._affected_by is not None:
                # A thread cancelled before its first run never runs.
                raise self._deliver(self._affected_by)
            assert self._call is not None
            function, arguments, keywords = self._call
            value = function(*arguments, **keywords)
        except BaseException as raised:  # noqa: BLE001  # carried to whoever asks for the result
            error = raised
            # The frames of the engine and of this method would only be noise in the user's traceback.
            error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
        # Nobody needs them any more, and they may be large.
        self._call = function = arguments = keywords = None  # type: ignore[assignment]
        try:
            self.end(value, error)
        finally:
            # The traceback leads back to this frame; without the cycle a failure goes when its last user lets go.
            del value, error

    def wait_unstarted(self, abort: Callable[[], bool]) -> None:
        """Be parked before the first run: unparked with a grant, the thread starts; withdrawn, it only ends."""
        self.queued = True
        self.state = PARKED
        self._abort = abort

    def end(self, value: Any, error: BaseException | None) -> None:
        """The thread is over: nothing is delivered any more, its owner and its joiners are told."""
        self._deferred += 1
        self.locals = None
        if self.innermost is not self:
            self.abandon_scopes(self)
        if self.group is not None:
            self.group.settle(self, value, error)
        self._detach()
        self.state = ENDED
        # They hold tracebacks, and by these whatever the thread worked on.
        self._deliveries = self._roused_by = None
        if self.group is not None:
            self.group.left(self)
            # Without these cycles, thread and future go as soon as the last user lets go of them.
            self.future = self._affected_by = None
            if self._parent is not None:
                self.innermost = self._parent
        if self._joiners:
            self._joiners.unpark_all()

    def abandon_scopes(self, until: CancelNode) -> None:
        """Get out of the scopes inside `until` whose end was forgotten; threads in them are cancelled."""
        while self.innermost is not until:
            scope = self.innermost
            assert isinstance(scope, CancelScope)
            scope.cancel(f"{self!r} did not leave {scope!r} in order")
            scope.leave_quietly(self)
        self.refresh()

    def note_sites(self, error: BaseException) -> None:
        """Add to `error` where this thread was spawned, once."""
        note = describe_sites(f"virtual thread {self.name!r} of group {self.group.name!r}", self.sites)
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)

    # --- cancelling and interrupting

    def cancel(self, reason: str | None = None) -> None:
        """Cancel what the thread runs, level-triggered: every checkpoint in it raises `Cancelled`.

        Not a checkpoint; thread-safe. It does not wait.

        Args:
            reason: a sentence for `Cancelled.reason`.
        """
        self._request_cancel(reason or f"{self!r} was cancelled", running())

    def interrupt(self, exc: BaseException | type[BaseException] = Interrupted) -> bool:
        """Raise `exc` once in the thread, at its current or next checkpoint. Not a checkpoint; thread-safe.

        Unhandled it is an ordinary failure of the thread. A pending cancellation is delivered first.

        Args:
            exc: an exception or an exception class.

        Returns:
            False if the thread has ended.

        Raises:
            TypeError: `exc` is neither.
        """
        error = exc() if isinstance(exc, type) and issubclass(exc, BaseException) else exc
        if not isinstance(error, BaseException):
            raise TypeError(f"interrupt() takes an exception or an exception class, not {exc!r}")
        return self.interrupt_with(error, polite=False)

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

    def _thread_inside(self) -> VirtualThread | None:
        return self if self.innermost is self else None


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
