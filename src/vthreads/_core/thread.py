"""The virtual thread: a fiber with a name, an owner, and a place in the cancel tree.

For the code that runs in it, it is a `threading.Thread`. This module does not depend on groups: the owner of a thread
gets its outcome by `_settle` and its end by `_member_ended`.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from contextvars import Context
from typing import Any, NoReturn, Protocol, Self

from ..errors import Cancelled, Interrupted
from .arguments import checked_timeout
from .cancel import CancelNode, CancelScope
from .copies import refuse_copy, refuse_creation
from .delivery import Recipient
from .engine import ABORTED, Fiber, Scheduler, State, compiled, running
from .exceptions import add_note, drop_frame, is_a, show, without_cancelled
from .idents import next_ident, serial_number
from .originals import allocate_lock
from .repeated import repeated_in
from .replaced import latest
from .spawn_site import SpawnSite, describe_sites, first_frame_outside
from .wait_queue import WaitQueue, waiter_here

__all__ = ["VirtualThread", "making_joiners"]

making_joiners = allocate_lock()

# As names of this module, because reading an attribute of an enum class is slow.
RUNNING, PARKED, ENDED = State.RUNNING, State.PARKED, State.ENDED


class Owner(Protocol):
    """The owner of a virtual thread."""

    name: str

    def _settle(self, thread: VirtualThread, value: Any, error: BaseException | None) -> None: ...

    def _member_ended(self, thread: VirtualThread) -> None: ...

    def _failed_at_end(self, thread: VirtualThread, error: BaseException) -> None: ...


@compiled
class ThreadFields(Fiber):
    """The fields of a virtual thread. Compiled code reads them by their places in memory."""

    __slots__ = (
        *Recipient._DELIVERY_SLOTS,
        "_call",
        "_joiners",
        "_name",
        "_future",
        "group",
        "_locals",
        "_queued",
        "_sites",
        "_thread_ident",
    )


class VirtualThread(Recipient, ThreadFields, threading.Thread):
    """The thread that `spawn` starts: it costs a few KiB, and parks instead of blocking its carrier.

    Created by `ThreadGroup.spawn` and `vthreads.spawn`. For its users it is a `threading.Thread`, which
    `threading.current_thread()` returns inside it.

    Attributes:
        name: a label; can be set.
        ident: a number that is unique among all threads of the process, virtual or not. C functions that take the ident
            of a thread return an error for it; `signal.pthread_kill` and `time.pthread_getcpuclockid` use the carrier.
        group: the group that owns it; None for a root thread.
        context: the `contextvars.Context` that it runs in; an empty one once it has ended.
        state: "new", "ready", "running", "parked" or "ended", as a `State`.
    """

    __slots__ = ()

    state: State

    def __init__(self, *_: object, **__: object) -> None:
        refuse_creation(
            self,
            "group.spawn(fn, *args) and vthreads.spawn(fn, *args) create virtual threads and start them; "
            "instead of a subclass, pass them a method of a plain class",
        )

    @repeated_in("_core/compiled/members.pxi")
    def _init_thread(
        self,
        scheduler: Scheduler,
        context: Context | None,
        group: Any = None,
        call: tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]] | None = None,
        sites: tuple[SpawnSite, ...] = (),
    ) -> Self:
        # threading.Thread.__init__ is not called: it would create locks and events that are not used.
        Fiber.__init__(self, scheduler, context)
        self._init_delivery()
        self._call = call
        self._name: str | None = None
        self.group = group
        self._sites = sites
        self._future: Any = None
        self._thread_ident = next_ident()
        self._joiners: WaitQueue | None = None
        # The token by which `local` identifies the thread; the data are freed with it.
        self._locals: Any = None
        # Whether it waits, or waited, for a permit of its group before its first run.
        self._queued = False
        return self

    # --- the interface of threading.Thread

    @property
    def name(self) -> str:
        """A label for messages and dumps; can be set."""
        return self._name or f"virtual-{serial_number(self._thread_ident)}"

    @name.setter
    def name(self, name: str) -> None:
        self._name = str(name)

    @property
    def ident(self) -> int:
        """A number that is unique among all threads of the process, virtual or not."""
        return self._thread_ident

    @property
    def native_id(self) -> int:
        """The kernel's id of the calling carrier, because a virtual thread has none."""
        return threading.get_native_id()

    @property
    def daemon(self) -> bool:
        """False, and cannot be set: the group of the thread decides how it ends."""
        return False

    @daemon.setter
    def daemon(self, daemon: bool) -> None:
        raise RuntimeError(f"{self!r} runs already; a virtual thread belongs to its group, which decides how it ends")

    def is_alive(self) -> bool:
        """Return whether the thread has not ended yet. Not a checkpoint; thread-safe."""
        return self.state is not ENDED

    def __reduce__(self) -> NoReturn:
        refuse_copy(self)

    def __repr__(self) -> str:
        owner = f" of group {self.group.name!r}" if self.group is not None else ""
        return f"<VirtualThread {self.name!r} {self.state.value}{owner}>"

    def join(self, timeout: float | None = None) -> None:
        """Wait until the thread has ended. A checkpoint, unless the timeout is 0; thread-safe.

        Its exception is not raised here; its `Future` raises it. As with `threading`, `is_alive()` shows afterwards
        whether the timeout expired first.

        Args:
            timeout: seconds, or None for no limit.

        Raises:
            RuntimeError: a thread cannot join itself.
        """
        if running() is self:
            raise RuntimeError(f"{self!r} cannot join itself: it would wait forever; return from its function instead")
        seconds = checked_timeout(timeout)
        if seconds is not None and seconds <= 0:
            return
        joiner = waiter_here()
        if isinstance(joiner, VirtualThread):
            joiner._check()
        # Created outside the lock: the allocation may run a finalizer, which may need the lock too.
        joiners = WaitQueue()
        with making_joiners:
            joiners = self._joiners = joiners if self._joiners is None else self._joiners
        joiners.add(joiner)
        if self.state is ENDED and joiners.withdraw(joiner):
            # The thread ended before the joiner was queued.
            return
        joiners.park(joiner, seconds)

    def stack(self) -> traceback.StackSummary:
        """Return the stack, outermost call first, without frames of the runtime; empty before the first run.

        Not a checkpoint. For the thread's own carrier; from another OS thread the result may be inconsistent.
        """
        frame = first_frame_outside(self._frame())
        frames = []
        while frame is not None:
            frames.append((frame, frame.f_lineno))
            frame = first_frame_outside(frame.f_back)
        return traceback.StackSummary.extract(reversed(frames), lookup_lines=False)

    # --- running

    @compiled
    def run(self) -> None:
        """Run the function and pass the outcome to the owner (called by the engine)."""
        value = error = None
        if self._queued:
            # Drop the abort function, through which the thread refers to itself.
            self._abort = None
            self.group._dequeued(self, granted=self._take_answer() is not ABORTED)
        try:
            try:
                if self._affected_by is not None:
                    # A thread cancelled before its first run never runs.
                    raise self._deliver(self._affected_by)
                assert self._call is not None
                function, arguments, keywords = self._call
                function = latest(function)
                value = function(*arguments, **keywords)
            except BaseException as raised:  # noqa: BLE001  # raised by `Future.result`
                error = raised
                # Remove the frame of this method, which would be noise in the user's traceback.
                drop_frame(raised)
                error = self._kept_of(raised)
            # Free the function and its arguments, which may be large.
            self._call = function = arguments = keywords = None  # type: ignore[assignment]  # unused from here
            self._end(value, error)
        except BaseException as end_error:  # noqa: BLE001  # reported as a failure of the group
            self._end_after(end_error, value, error)
        finally:
            # The traceback refers to this frame. Break the cycle, so that a failure is freed with its last reference.
            del value, error

    @repeated_in("_core/compiled/thread.pxi")
    def _kept_of(self, error: BaseException) -> BaseException:
        """Return what to store of `error`, which ended the function: of a cancellation only its reason and source.

        The frames of a cancellation are freed at once, while the thread can still park: finalizers of their locals may
        have to wait.
        """
        if without_cancelled(error) is not None:
            return error
        self._forget_errors()
        return Cancelled(error.reason, error.source) if is_a(error, Cancelled) else Cancelled()

    def _notice(self) -> None:
        if self._queued and self.state is PARKED and self._greenlet is None and self.group._spreads:
            # It waits for a permit and has no carrier yet: that of its spawner, to which this would go, may be pinned.
            self._pending = True
            abort = self._abort
            if abort is not None and self._affected_by is not None:
                abort()
        else:
            super()._notice()

    def _wait_unstarted(self, abort: Callable[[], bool]) -> None:
        """Park before the first run. A grant starts the thread; a withdrawal only ends it."""
        self._queued = True
        self.state = PARKED
        self._abort = abort

    def _end_after(self, end_error: BaseException, value: Any, error: BaseException | None) -> None:
        """End the thread after `end_error` has interrupted its end outside the block of `_end` that handles it.

        Only a trace function raises there, such as that of a debugger that quits. Python calls it no more.
        """
        if self.state is ENDED:
            show(end_error)
        else:
            self.group._settle(self, value, error)
            self.group._failed_at_end(self, end_error)
            self._leave()
        if self._joiners:
            self._joiners.unpark_all()

    @repeated_in("_core/compiled/members.pxi")
    def _end(self, value: Any, error: BaseException | None) -> None:
        """End the thread: deliver nothing any more, and notify its owner and its joiners."""
        self._deferred += 1
        try:
            try:
                if self._innermost is not self:
                    self._abandon_scopes(self)
                if self.group is not None:
                    self.group._settle(self, value, error)
            finally:
                self._leave()
        except BaseException as end_error:  # raised by callbacks at the end, or by a trace function anywhere in it
            if self.group is None:
                raise
            self.group._failed_at_end(self, end_error)
            if self.state is not ENDED:
                self._leave()
        if self._joiners:
            self._joiners.unpark_all()

    @repeated_in("_core/compiled/members.pxi")
    def _leave(self) -> None:
        """Leave context, scope and group. Called again if an error ended the first call: each step may be repeated."""
        # After the callbacks, which use these data and run in the context. While the thread can park, because
        # finalizers of both may have to wait.
        self._locals = None
        if self.group is not None:
            self._leave_context()
        self._detach()
        # These hold tracebacks, which keep the objects in their frames alive.
        self._deliveries = self._interrupts = self._roused_by = None
        if self.group is None:
            self.state = ENDED
        else:
            # Retire first: a finalizer that waited after `_member_ended` would outlive the group.
            self._retire()
            self.group._member_ended(self)

    @repeated_in("_core/compiled/thread.pxi")
    def _break_cycles(self) -> None:
        """Break the reference cycles, so that thread and future are freed with their last reference."""
        self._future = self._affected_by = self._cancel_source = None
        if self._parent is not None:
            self._innermost = self._parent

    def _abandon_scopes(self, until: CancelNode) -> None:
        """Leave the scopes inside `until` that the program did not leave; cancel the threads in them."""
        while self._innermost is not until:
            scope = self._innermost
            assert isinstance(scope, CancelScope)
            # Not through the methods of a user's subclass, which may raise.
            scope._request_cancel(f"{self!r} did not leave {CancelScope.__repr__(scope)} in order", self)
            scope._leave_quietly(self)
        self._refresh()

    def _note_sites(self, error: BaseException) -> None:
        """Add a note to `error` with the places where this thread was spawned, once."""
        place = describe_sites(f"{self.name!r} of group {self.group.name!r}", self._sites)
        add_note(error, "in virtual thread ", place)

    # --- cancelling and interrupting

    def cancel(self, reason: str | None = None) -> None:
        """Cancel the code of the thread, level-triggered: every checkpoint in it raises `Cancelled`.

        Not a checkpoint; thread-safe. It does not wait.

        Args:
            reason: a sentence for `Cancelled.reason`.
        """
        self._request_cancel(reason or f"{self!r} was cancelled", running())

    def _spread(self) -> None:
        # As the node that affects itself, a thread that has ended would refer to itself again, and only the garbage
        # collector could free it.
        if self.state is not ENDED:
            super()._spread()

    def interrupt(self, exc: BaseException | type[BaseException] = Interrupted) -> bool:
        """Raise `exc` once in the thread, at its current or next checkpoint. Not a checkpoint; thread-safe.

        If it is not caught, it is an ordinary failure of the thread. A pending cancellation is delivered first.

        Args:
            exc: an exception or an exception class.

        Returns:
            False if the thread has ended.

        Raises:
            TypeError: `exc` is neither an exception nor an exception class.
        """
        error = exc() if is_a(exc, type) and issubclass(exc, BaseException) else exc
        if not isinstance(error, BaseException):
            raise TypeError(f"interrupt() takes an exception or an exception class, not {exc!r}")
        return self._interrupt_with(error, polite=False)

    def _thread_inside(self) -> VirtualThread | None:
        return self if self._innermost is self else None
