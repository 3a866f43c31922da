"""The virtual thread: a fiber with a name, an owner, and a place in the cancel tree.

To the code that runs in it, it is a `threading.Thread`. This file does not know groups; what owns a thread is told of
its outcome by `settle` and of its end by `left`.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from contextvars import Context
from itertools import count
from typing import Any, Protocol

from ..errors import Interrupted
from .cancel import CancelNode, CancelScope
from .current import running
from .delivery import Recipient
from .engine import ABORTED, Fiber, Scheduler, State, compiled
from .originals import allocate_lock
from .spawn_site import SpawnSite, describe_sites, first_frame_outside
from .wait_queue import WaitQueue, waiter_here

__all__ = ["VirtualThread"]

idents = count(1)
_making = allocate_lock()

# Names of this module: an attribute of an enum class is slow to get.
RUNNING, PARKED, ENDED = State.RUNNING, State.PARKED, State.ENDED


class Owner(Protocol):
    """What a virtual thread belongs to."""

    name: str

    def settle(self, thread: VirtualThread, value: Any, error: BaseException | None) -> None: ...

    def left(self, thread: VirtualThread) -> None: ...


# What a virtual thread keeps.
PLACES = (
    *Recipient.DELIVERY_SLOTS,
    "_call",
    "_joiners",
    "_name",
    "future",
    "group",
    "locals",
    "queued",
    "sites",
    "thread_ident",
)


class VirtualThread(Recipient, threading.Thread):
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
        self._init_delivery()
        self._call = call
        self._name: str | None = None
        self.group = group
        self.sites = sites
        self.future: Any = None
        self.thread_ident = next(idents)
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

    def _thread_inside(self) -> VirtualThread | None:
        return self if self.innermost is self else None
