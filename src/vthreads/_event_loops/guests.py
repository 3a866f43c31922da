"""Guest mode: the scheduler of a carrier is driven by an event loop that runs on the same OS thread.

One virtual thread runs the loop: the host. The loop watches the descriptor of the poller, and a timer and a callback
call `Guest._turn`, in which the host lends the carrier to the other virtual threads. A blocking call in the loop's own
code parks the host outside a turn: the loop stands still, and the others go on.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from .._calls.net.select import Epoll, Kqueue, Poll, original_select
from .._core.carrier import without_run
from .._core.clock import MonotonicClock
from .._core.current import running
from .._core.deadlock import describe_wait
from .._core.engine import Scheduler, Section, State, compiled, supply
from .._core.participants import Participant, participate
from .._core.thread import VirtualThread
from .._os_threads.held_up import leave_calls_behind
from .running_loops import note_running_loop, running_loop_of

__all__ = ["Guest", "guest_of", "guests", "host", "is_served", "loop_hosts", "loop_of_root"]


@compiled
class GuestFields:
    """The fields of a guest that compiled code reads by their places in memory."""

    __slots__ = (
        "_begun",
        "_current_task",
        "_later",
        "_soon",
        "_start_task",
        "_turn_follows",
        "changing",
        "ends",
        "is_lent",
        "is_own",
        "loop",
        "scheduler",
        "thread",
        "waiting",
    )


class Guest(GuestFields):
    """A scheduler as the guest of an event loop.

    Args:
        scheduler: of the calling OS thread. Its poller has a descriptor that can be polled.
        loop: runs on this OS thread, or is about to.
        thread: the virtual thread that runs the loop.
    """

    def __init__(self, scheduler: Scheduler, loop: Any, thread: VirtualThread) -> None:
        self.scheduler = scheduler
        self.loop = loop
        # Guards the outcome of each call that waits; reentrant, because a finalizer may run in between.
        self.changing = Section()
        self.thread = thread
        # Whether the runtime has made the loop.
        self.is_own = False
        # Whether the runtime is about to close the loop; it runs only to end its tasks.
        self.ends = False
        # The calls that wait for the loop; their class defines `settle(value, error)`.
        self.waiting: dict[Any, None] = {}
        # A task whose end asks for a turn; see `has_tasks`.
        self._watched: Any = None
        # Functions to call at once, in the turn that is under way; see `begin`.
        self._begun: list[Callable[[], object]] = []
        # Whether the other virtual threads have the carrier; not while this turn calls such a function.
        self.is_lent = False
        # Whether the next turn comes in the next iteration of the loop in any case.
        self._turn_follows = False
        self._soon: Any = None
        self._later: Any = None
        self._start_task, self._drop_spare_task, self._current_task = _functions_of_tasks(loop)
        self._fd: int = scheduler.poller.fileno()  # type: ignore[attr-defined]  # see `_can_be_guest`
        self._leave_original = _wait_in_original(loop)
        try:
            loop.add_reader(self._fd, self._turn, True)
        except NotImplementedError:
            # Nothing gives turns, so a loop that waits in the originals would block the carrier.
            self._leave_original()
            raise
        scheduler.loop_calls = self.waiting
        scheduler.when_ready = self._call_soon
        self._call_soon()

    @property
    def is_over(self) -> bool:
        """Whether the loop runs no more coroutines."""
        return self.ends or not self.is_driven

    @property
    def is_driven(self) -> bool:
        """Whether the loop runs, so that it gives the virtual threads their turns."""
        return self.loop.is_running()  # type: ignore[no-any-return]  # an event loop has no type before asyncio is there

    @property
    def blocked_since(self) -> float | None:
        """The time on the clock at which code of the loop parked and so blocked it; None: the loop goes on."""
        thread = self.thread
        if thread.state is not State.PARKED or self.is_lent or not self.is_driven:
            return None
        return thread._parked_at

    def end(self) -> None:
        """Let the scheduler wait by itself again. On its OS thread; idempotent."""
        self.scheduler.when_ready = None
        if self.scheduler.loop_calls is self.waiting:
            self.scheduler.loop_calls = None
        if self.scheduler.when_idle == self.end_if_stopped:
            self.scheduler.when_idle = None
        for handle in (self._soon, self._later):
            if handle is not None:
                handle.cancel()
        self._soon = self._later = None
        self._drop_spare_task()
        if not self.loop.is_closed():
            self.loop.remove_reader(self._fd)
            self._leave_original()
        if guests.get(self.scheduler) is self:
            del guests[self.scheduler]
        self.fail_waiting()

    def end_if_stopped(self) -> bool:
        """Handle that the loop runs no more; called before each wait of the scheduler. Returns whether calls ended."""
        if self.is_lent or self.is_driven:
            return False
        was_waiting = bool(self.waiting)
        self.end()
        return was_waiting

    def fail_waiting(self) -> None:
        """End the calls that wait for the loop, which has ended or was stopped."""
        for call in list(self.waiting):
            call.settle(None, RuntimeError(f"{self.loop!r} was stopped, so its coroutines do not go on"))

    def has_tasks(self) -> bool:
        """Return whether the loop has a task that has not ended; if it has, ask for a turn when one has ended.

        In that turn, the scheduler checks for a deadlock again.
        """
        from asyncio import all_tasks

        if self._watched is None or self._watched.done():
            self._watched = next(iter(all_tasks(self.loop)), None)
            if self._watched is not None:
                self._watched.add_done_callback(lambda _: self._call_soon())
        return self._watched is not None

    @compiled
    def begin(self, function: Callable[[], object]) -> None:
        """Call `function()`, which creates a task of the loop and must not raise; for any code of this OS thread.

        In a turn, the host calls it at once, and the caller goes on when that has ended or parks: the first step of the
        task needs no turn of the loop. While a blocking call in the loop's own code blocks the loop, the task waits for
        that.
        """
        if self.loop.get_debug():
            self.loop.call_soon_threadsafe(function)
        elif self.is_lent:
            self._begun.append(function)
            self.scheduler.call_host()
        else:
            function()

    @compiled
    def create_task(self, coroutine: Any, context: Any) -> Any:
        """Create a task of the loop, and make its first step at once if the loop could.

        Returns None if the coroutine has ended in that step and nothing has kept its task.
        """
        loop = self.loop
        if running() is self.thread and loop.get_task_factory() is None and self._current_task(loop) is None:
            task = self._start_task(coroutine, context=context)
            if task is not None and not task.done() and task._fut_waiter is None:
                # It has yielded, so the next iteration of the loop makes its next step. A turn after that finds the
                # threads that the step has unparked, without one more iteration.
                self._turn_follows = True
            return task
        return self.loop.create_task(coroutine, context=context)

    @compiled
    def call(self, function: Callable[..., object], *args: Any) -> Any:
        """Call `function(*args)` on the loop, soon; for any code of this OS thread. Returns the handle.

        Raises:
            RuntimeError: the loop is closed.
        """
        if self.loop.get_debug():
            # In debug mode asyncio compares the ident of the caller, which is that of a virtual thread.
            return self.loop.call_soon_threadsafe(function, *args)
        return self.loop.call_soon(function, *args)

    @compiled
    def _call_soon(self) -> None:
        """Ask for a turn: a virtual thread is ready, or timers may have changed."""
        if self._soon is None:
            if self.loop.is_closed():
                self.end()
            else:
                self._soon = self.call(self._turn)

    @compiled
    def _turn(self, polls: bool = False) -> None:
        """Run the other virtual threads until it is the loop's turn (called by the loop).

        Args:
            polls: the descriptor of the poller is ready.
        """
        for handle in (self._soon, self._later):
            if handle is not None:
                handle.cancel()
        self._later = None
        # Not None during the turn: nothing needs to ask for another one.
        self._soon = _turn_under_way
        if running() is not self.thread:
            self._soon = None
            return
        seconds = self._lend(polls)
        self._soon = None
        if seconds == 0 or self._turn_follows:
            self._turn_follows = False
            self._call_soon()
        elif seconds is not None:
            self._later = self.loop.call_later(seconds, self._turn)

    @compiled
    def _lend(self, polls: bool) -> float | None:
        """Run the other virtual threads, and call here what they begin on the loop. Returns as `Scheduler.lend`."""
        goes_on = False
        while True:
            self.is_lent = True
            try:
                seconds: float | None = self.scheduler.lend(goes_on, polls)
            finally:
                self.is_lent = False
            if not self._begun:
                return seconds
            begun, self._begun = self._begun, []
            for function in begun:
                function()
            if seconds is None or seconds >= 0:
                # The turn was over already. But a function may have made a thread ready.
                return 0.0
            goes_on, polls = True, False


def _functions_of_tasks(loop: Any) -> tuple[Callable[..., Any], Callable[[], None], Callable[..., Any]]:
    # Imported here, because they import asyncio, and programs without asyncio import this module too.
    from asyncio import current_task

    from .first_steps import task_starter

    return *task_starter(loop), current_task


def _wait_in_original(loop: Any) -> Callable[[], None]:
    """Make asyncio's loop wait in the originals of patched functions; return the function that undoes it.

    The patched ones park the virtual thread, and the poller would watch the descriptors that the loop waits for. But
    the loop watches the poller, and the kernel refuses a circle. uvloop waits in C.
    """
    from selectors import SelectSelector

    selector = getattr(loop, "_selector", None)
    inner = getattr(selector, "_selector", None)
    if isinstance(inner, Epoll | Kqueue):
        return _exchanged(selector, "_selector", inner._queue)
    if isinstance(inner, Poll):
        # It records the registrations, so only its wait is exchanged.
        return _exchanged(inner, "poll", inner._poll.poll)
    if isinstance(selector, SelectSelector):
        return _exchanged(selector, "_select", original_select)
    return lambda: None


def _exchanged(owner: Any, name: str, value: Any) -> Callable[[], None]:
    """Set an attribute of `owner`; return the function that takes it back."""
    before = vars(owner).get(name)
    setattr(owner, name, value)
    return partial(delattr, owner, name) if before is None else partial(setattr, owner, name, before)


class _TurnUnderWay:
    """Stands for the callback of a turn while that runs."""

    def cancel(self) -> None:
        """Do nothing."""


_turn_under_way = _TurnUnderWay()
supply(__name__, turn_under_way=_turn_under_way)

guests: dict[Scheduler, Guest] = {}


def guest_of(scheduler: Scheduler) -> Guest | None:
    """Return the guest that `scheduler` is at present; None if no loop drives it."""
    guest = guests.get(scheduler)
    return guest if guest is not None and guest.is_driven else None


def host(loop: Any, thread: VirtualThread) -> Guest | None:
    """Make the scheduler of `thread`, which runs `loop` here, the guest of it; return None if that is not possible.

    It is not possible if it is the guest of another loop that runs, if its poller has no descriptor, or if its clock
    is not that of the loop.
    """
    scheduler = thread._scheduler
    before = guests.get(scheduler)
    if before is not None and loop_hosts(loop, thread):
        return before
    if before is not None and before.is_driven or not _can_be_guest(scheduler):
        return None
    if before is not None:
        before.end()
    try:
        guest = guests[scheduler] = Guest(scheduler, loop, thread)
    except NotImplementedError:
        # This kind of loop cannot watch a descriptor.
        return None
    return guest


def is_served(scheduler: Scheduler, loop: Any) -> bool:
    """Return whether virtual threads of `scheduler`, which is here, run while `loop`, which runs here, waits."""
    guest = guests.get(scheduler)
    return guest is not None and guest.loop is loop or _parks(loop)


def _parks(loop: Any) -> bool:
    """Return whether `loop` waits in a patched function, which parks only the virtual thread that runs it."""
    from selectors import SelectSelector

    selector = getattr(loop, "_selector", None)
    if isinstance(selector, SelectSelector):
        return sys.modules["select"].select is not original_select
    return isinstance(getattr(selector, "_selector", None), Epoll | Kqueue | Poll)


def loop_hosts(loop: Any, thread: VirtualThread) -> bool:
    """Return whether the scheduler of `thread` is the guest of `loop`, run by `thread`, already."""
    guest = guests.get(thread._scheduler)
    return guest is not None and guest.loop is loop and guest.thread is thread


def loop_of_root(root: VirtualThread, loop: Any) -> None:
    """Handle that `root` of a carrier begins to run `loop`; None: it has ended."""
    if loop is not None:
        host(loop, root)
        return
    guest = guests.get(root._scheduler)
    if guest is not None and guest.thread is root:
        guest.end()


def _can_be_guest(scheduler: Scheduler) -> bool:
    has_descriptor = hasattr(scheduler.poller, "fileno")
    return has_descriptor and type(scheduler.clock) is MonotonicClock


def _started(scheduler: Scheduler, patch: bool) -> None:
    """Adopt the loop whose code has started the runtime by its first use."""
    asyncio = sys.modules.get("asyncio.events")
    loop = None if asyncio is None else asyncio._get_running_loop()
    root: VirtualThread = scheduler.root
    if loop is None or running_loop_of(root) is not None:
        return
    note_running_loop(root, loop)
    carrier = without_run.get(scheduler.ident)
    if carrier is not None and carrier.scheduler is scheduler:
        guest = host(loop, root)
        if guest is not None:
            # uvloop that was imported before the patch does not report its end.
            scheduler.when_idle = guest.end_if_stopped


def _stopping(scheduler: Scheduler) -> None:
    guest = guests.get(scheduler)
    if guest is not None:
        guest.end()


def _may_unpark(scheduler: Scheduler) -> bool:
    """Return whether a loop of the program runs, whose callbacks can unpark virtual threads."""
    guest = guest_of(scheduler)
    return guest is not None and not guest.is_own and guest.blocked_since is None


def _blocked(scheduler: Scheduler) -> Guest | None:
    guest = guest_of(scheduler)
    return None if guest is None or guest.blocked_since is None else guest


def _deadlocked(scheduler: Scheduler) -> VirtualThread | None:
    guest = _blocked(scheduler)
    if guest is None:
        return None
    # The loop may be blocked by the end of a group, whose cancelled members wait for the loop: their grace has expired.
    leave_calls_behind(scheduler=scheduler)
    return guest.thread


def _note_of_deadlock(scheduler: Scheduler) -> str:
    guest = _blocked(scheduler)
    if guest is None:
        return ""
    return (
        f"{guest.thread.name!r} runs {guest.loop!r}, and a coroutine or callback blocks that loop in "
        f"{describe_wait(guest.thread)}; use `await asyncio.wrap_future(future)` or `await aio.to_vthread(function)`"
    )


participate(
    __name__,
    Participant(
        started=_started,
        stopping=_stopping,
        may_unpark=_may_unpark,
        deadlocked=_deadlocked,
        deadlock_note=_note_of_deadlock,
        forked=guests.clear,
    ),
)
