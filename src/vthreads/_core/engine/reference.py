"""The engine in readable Python: the specification of the compiled engine.

The contract is in the docstring of the package. There is no hub: a fiber that parks picks the next ready one and
switches to it, or polls if there is none.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import inf
from sys import getprofile, gettrace
from time import monotonic
from typing import Any, TypeVar

from greenlet import getcurrent, greenlet

from ..clock import Clock
from ..order import Order
from ..originals import Section, get_ident
from ..repeated import repeated_in
from . import states
from .descriptors import Descriptors, modes_changed
from .fiber import Abort, Fiber
from .greenlet_pool import GreenletPool
from .pollers import Poller
from .states import (
    DEADLOCK_AGAIN_AFTER,
    LONGEST_WAIT,
    NOTHING,
    SLICE,
    SWITCHES_PER_POLL,
    State,
    carriers,
    contended,
)
from .timers import Timers
from .untraced import enter_tracing, leave_tracing, thread_state

__all__ = [
    "Fiber",
    "Scheduler",
    "Section",
    "become_carrier",
    "cease_carrier",
    "compiled",
    "modes_changed",
    "quick_condition_call",
    "quick_socket_calls",
    "refuse_by",
    "running",
    "supply",
]

NEW, READY, RUNNING, PARKED, ENDED = State

T = TypeVar("T")


def _stay_parked() -> bool:
    """Refuse to withdraw the wait of the fiber that runs an event loop: the scheduler ends it."""
    return False


@repeated_in("_core/engine/compiled/scheduler.pxi")
class Scheduler:
    """Run queue, timers, poller and inbox of one carrier.

    Args:
        poller, clock, order: see their contracts.
        is_deadlocked: called when all fibers are parked and no timer, descriptor or `outside` work is left; returns
            whether nothing else could unpark one. Called twice, a moment apart, before `when_deadlocked`.
        when_deadlocked: called at a deadlock; makes a fiber ready.
        when_signalled: called with an exception that a foreign signal handler raised inside a poll.
    """

    running: Any = None
    arriving: Any = None
    # It has no `gr_frame`: another OS thread finds its frames among those of the OS threads.
    idle_on: greenlet | None = None
    outside: int = 0
    switches: int = 0
    switched_at: float = -inf
    slice_end: float = inf
    closed: bool = False

    # Set by the modules above: see the contract.
    observer: Any = None
    when_forking: Callable[[], bool] | None = None
    when_idle: Callable[[], bool] | None = None
    when_contended: Callable[[], float] | None = None
    when_landed: Callable[[Any], object] | None = None
    when_ready: Callable[[], object] | None = None
    loop_calls: Any = None
    background: Any = None
    threads: Any = None
    daemons: Any = None
    root: Any = None
    placement: Any = None

    # The turn of an event loop: the fiber that runs the loop; whether it runs next, and whether `call_host` is why; the
    # limits of the turn; and the seconds that the last wait of a turn could have taken.
    _host: Fiber | None = None
    _host_is_next = _host_is_called = False
    _turn_ends_at, _turn_ends_at_switch = inf, 0
    _host_patience: float | None = 0.0
    # Whether the next landing needs no turn: that of a fiber that was started, because its spawner lands after it; and
    # that of the spawner, if the fiber has ended without a wait. A fiber that it made ready has asked for a turn
    # already; one that waits may have a timer, or may be deadlocked, which a turn finds.
    _is_quiet = False

    # The fiber that has ended, until the next one has landed: objects that only it kept alive are freed there.
    _ended: Fiber | None = None
    # Whether trace and profile functions are suspended.
    _is_untraced = False
    # Whether the carrier waits, or may begin to wait, in its poller.
    _asleep = False
    _poll_at, _poll_at_switch = -inf, 0
    # Real time of the next check of the locks that are waited for.
    _contended_at = -inf

    def __init__(
        self,
        poller: Poller,
        clock: Clock,
        order: Order,
        is_deadlocked: Callable[[], bool],
        when_deadlocked: Callable[[], None],
        when_signalled: Callable[[BaseException], None],
    ) -> None:
        self.ident: int = get_ident()
        self.clock = clock
        self.poller = poller
        self.timers: Timers = Timers()
        self.descriptors: Descriptors = Descriptors(poller)
        self._is_deadlocked = is_deadlocked
        self._when_deadlocked = when_deadlocked
        self._when_signalled = when_signalled
        self._now = clock.now
        self._ready = order.run_queue()
        # Fibers that run before all others, latest first: mostly fibers whose spawn started another one. A spawn is
        # like a call, so the innermost spawner goes on first.
        self._spawners: list[Fiber] = []
        self._inbox: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()
        self._pool: GreenletPool = GreenletPool(self._carry)

    # --- from any OS thread

    def post(self, function: Callable[..., Any], *args: Any) -> None:
        """Call `function(*args)` on the carrier, between two switches. It must not park or raise."""
        self._inbox.append((function, args))
        if self._asleep:
            self.poller.interrupt()

    # --- on the carrier

    def adopt(self, fiber: Fiber) -> None:
        """Make the running code the code of `fiber`."""
        fiber.state = RUNNING
        self.running = fiber
        self.switched_at = monotonic()
        self.slice_end = self._now() + SLICE

    def make_ready(self, fiber: Fiber) -> None:
        """Queue a parked or new fiber."""
        if self.observer is not None:
            self.observer.readied(fiber)
        fiber.state = READY
        self._ready.append(fiber)
        if self.when_ready is not None and self._host is None:
            self.when_ready()

    def make_next(self, fiber: Fiber) -> None:
        """Run `fiber` at the next switch, before all others."""
        fiber.state = READY
        self._spawners.append(fiber)

    def start(self, fiber: Fiber) -> None:
        """Run a new fiber at once, up to its first park; then the caller continues, before all others.

        For other fibers that is a single run, like a call, with a single time slice.
        """
        spawner: Fiber = self.running
        if self._is_traced():
            enter_tracing(thread_state())
            self._is_untraced = True
        self.running = None
        spawner.state = READY
        spawner._greenlet = getcurrent()
        self._spawners.append(spawner)
        due = self.timers.due()
        self._is_quiet = True
        self._switch_to(fiber)
        self._is_quiet = fiber.state is ENDED and self.timers.due() >= due
        self._land()
        if self._is_untraced:
            self._is_untraced = False
            leave_tracing(thread_state())
            states.landed()

    def park(self, abort: Abort | None = None, deadline: float = inf) -> Any:
        """Run others until the running fiber is unparked; return the value of `_unpark`, TIMED_OUT or ABORTED."""
        fiber: Fiber = self.running
        if self.when_forking is not None and self.when_forking():
            return fiber._scheduler.park(abort, deadline)
        if self._is_traced():
            enter_tracing(thread_state())
            self._is_untraced = True
        self.running = None
        fiber._has_begun_to_wait = False
        fiber._abort = abort
        fiber._greenlet = getcurrent()
        fiber._parked_at = self._now()
        fiber._parked_until = deadline
        # From here on an unpark makes the fiber ready. If a finalizer has unparked it before, it continues at once.
        # Read the state again: a finalizer may unpark it between the two lines, which makes it ready like any other.
        fiber.state = PARKED
        if fiber.state is PARKED and fiber._answer is not NOTHING:
            self.arriving = fiber
        else:
            if self.observer is not None:
                self.observer.parked(fiber)
            timer = self.timers.add(deadline, fiber) if deadline < inf else None
            self._switch_to(self._take_next())
            if timer is not None:
                self.timers.cancel(timer)
        # Nothing of this wait may be left when the fiber runs: foreign code may park it again before this returns.
        fiber._abort = None
        answer = fiber._take_answer()
        self._land()
        if self._is_untraced:
            self._is_untraced = False
            leave_tracing(thread_state())
            states.landed()
        return answer

    @repeated_in("_core/engine/compiled/turns.pxi")
    def lend(self, goes_on: bool = False, polls: bool = True) -> float | None:
        """Run others until it is the turn of the event loop that the running fiber runs, or until `call_host`.

        That is when no other fiber is ready, or at the first poll after 64 switches or 1 ms. At least one fiber runs if
        one is ready, however long the poll at the beginning takes.

        Args:
            goes_on: go on with the turn in which `call_host` was called.
            polls: begin with a poll, because the loop has found the descriptor of the poller ready.

        Returns:
            The seconds within which the next turn must come: 0 if fibers are ready, None for no limit; a negative
            number after `call_host`.
        """
        self._host = self.running
        self._host_is_next = self._host_is_called = False
        if not goes_on:
            self._turn_ends_at = inf
            self._turn_ends_at_switch = self.switches + SWITCHES_PER_POLL
        if polls:
            self._poll_at = -inf
        self.park(_stay_parked)
        self._host = None
        if self._host_is_called:
            return -1.0
        # The loop may wait from here on, so messages must interrupt it.
        self._asleep = True
        return 0.0 if self._ready or self._inbox else self._host_patience

    @repeated_in("_core/engine/compiled/turns.pxi")
    def call_host(self) -> None:
        """Run the fiber that called `lend`, up to its next park; then the caller continues, before all others.

        If the turn is over, the caller continues after all others, so that calls in a row do not prolong it.
        """
        self._switch_after(self._queue_behind_host)

    @repeated_in("_core/engine/compiled/turns.pxi")
    def _queue_behind_host(self, caller: Fiber) -> None:
        if self._is_turn_over():
            self.make_ready(caller)
        else:
            self.make_next(caller)
        if self._host is not None and not self._host_is_next:
            self._host_is_next = self._host_is_called = True
            self.make_next(self._host)

    def _is_turn_over(self) -> bool:
        return self.switches >= self._turn_ends_at_switch or self._now() >= self._turn_ends_at

    @repeated_in("_core/engine/compiled/turns.pxi")
    def _poll_for_host(self, seconds: float | None) -> list[tuple[int, int]]:
        """Poll without waiting, and end the turn instead of waiting, or if it has lasted for long."""
        # If no fiber waits for a descriptor, only a message is left to poll for, and the loop finds that as well.
        events = self.poller.wait(0) if seconds == 0 or self.descriptors.waiting else []
        is_idle = seconds != 0 and not events
        is_over = self._is_turn_over()
        self._turn_ends_at = min(self._turn_ends_at, self._now() + SLICE)
        if (is_idle or is_over) and not self._host_is_next and not self._spawners:
            assert self._host is not None
            self._host_is_next = True
            self._host_patience = seconds
            self.make_next(self._host)
        return events

    def _yield_now(self) -> None:
        """Let every fiber that is ready run once."""
        self._switch_after(self.make_ready)

    def _switch_after(self, queue: Callable[[Fiber], object]) -> None:
        """Queue the running fiber by `queue(fiber)`, and switch to the next one. Returns when the fiber runs again."""
        fiber: Fiber = self.running
        if self.when_forking is not None and self.when_forking():
            return
        if self._is_traced():
            enter_tracing(thread_state())
            self._is_untraced = True
        self.running = None
        fiber._greenlet = getcurrent()
        queue(fiber)
        self._switch_to(self._take_next())
        self._land()
        if self._is_untraced:
            self._is_untraced = False
            leave_tracing(thread_state())
            states.landed()

    def suspend_tracing(self) -> None:
        """Call no trace or profile function of this OS thread until a fiber lands, also none that is set until then."""
        if not self._is_untraced:
            # In this order: a trace function may come before the second line, and suspend and resume for itself.
            enter_tracing(thread_state())
            self._is_untraced = True

    def _is_traced(self) -> bool:
        return not self._is_untraced and (gettrace() is not None or getprofile() is not None)

    def close(self) -> None:
        """End the pooled greenlets and close the poller. No fiber but the running one may be left."""
        self.closed = True
        self._pool.close()
        self.poller.close()

    # --- switching

    # A switch has three parts: the leaving fiber sets `running` to None before it changes anything; the greenlet
    # switch; and the landing fiber sets `running` when all is changed. Foreign code in between belongs to no fiber: it
    # may be on the stack of either, and a park there would park the wrong one. Trace functions run at every line, and
    # their exceptions would interrupt the switch, so they are suspended. Tracers that count calls and returns, such as
    # coverage, would miss the return of a function that only suspends, and the call of one that only resumes. So
    # `start`, `park`, `_switch_after` and `_carry` each do both.

    def _take_next(self) -> Fiber:
        self.switches += 1
        now = self._now()
        self.switched_at = monotonic()
        if self.switches >= self._poll_at_switch or now >= self._poll_at:
            self._look_outside(0)
        if self._inbox:
            self._empty_inbox()
        if self._spawners:
            return self._spawners.pop()
        if not self._ready:
            self.idle_on = getcurrent()
            while not self._ready:
                self._idle()
                if self._spawners:
                    self.idle_on = None
                    self.switched_at = monotonic()
                    self.slice_end = self._now() + SLICE
                    return self._spawners.pop()
            self.idle_on = None
            if self._inbox:
                # A message for an idle carrier may have come after the inbox was read last.
                self._empty_inbox()
            now = self._now()
            self.switched_at = monotonic()
        self.slice_end = now + SLICE if self.when_forking is None else -inf
        fiber: Fiber = self._ready.popleft()
        return fiber

    def _switch_to(self, fiber: Fiber) -> None:
        """Switch to `fiber`, which lands there; return after a switch back."""
        if self.observer is not None:
            self.observer.runs(fiber)
        target = self._pool.take() if fiber._greenlet is None else fiber._greenlet
        self.arriving = fiber
        # This frame may exist for long, and must not keep the other fiber alive.
        del fiber
        if target is not getcurrent():
            target.switch()

    def _land(self) -> Fiber:
        """Complete the switch: the fiber that was switched to runs from here on."""
        fiber: Fiber = self.arriving
        is_quiet = self._is_quiet
        self.arriving = None
        self._is_quiet = False
        fiber.state = RUNNING
        self.running = fiber
        if self.when_landed is not None:
            self.when_landed(fiber)
        if self._ended is not None:
            # A new thread may have been unparked already, by the queue in which it waited for a permit. Keep that
            # answer while the code below runs, which may park and would take it.
            answer = fiber._take_answer()
            self._release_ended()
            if answer is not NOTHING:
                fiber._answer = answer
        if self.when_ready is not None and self._host is None and not is_quiet:
            self.when_ready()
        return fiber

    def _release_ended(self) -> None:
        """Free the fiber that has ended, with the objects that only it kept alive: any code may run, and may park."""
        ended, self._ended = self._ended, None
        if ended is not None:
            ended._break_cycles()

    def _carry(self) -> None:
        """The code of a greenlet: run fiber after fiber. It ends when it is switched to without one."""
        me = getcurrent()
        while self.arriving is not None:
            fiber = self._land()
            if self._is_untraced:
                self._is_untraced = False
                leave_tracing(thread_state())
                states.landed()
            # Set here, where the fiber runs, because this may free values of the old context, and so run finalizers.
            me.gr_context = fiber.context
            fiber.run()
            fiber._retire()
            if self.observer is not None:
                self.observer.ended(fiber)
            fiber._greenlet = None
            self._ended = fiber
            del fiber
            self._pool.keep(me)
            self._switch_to(self._take_next())

    # --- outside events

    def _idle(self) -> None:
        """Wait for a timer, a descriptor or a message, because no fiber is ready."""
        if self._ended is not None:
            # It may take long until a fiber lands, so free the ended fiber here. Code that this runs cannot wait, but
            # may make a fiber ready.
            self._release_ended()
            return
        if self.when_idle is not None and self.when_idle():
            return
        due = self.timers.due()
        loop_goes_on = self._host is not None and bool(self.loop_calls)
        outside = self.outside > 0 or self.descriptors.waiting > 0 or loop_goes_on
        if due == inf and not outside and not self._inbox and self._is_deadlocked():
            # An OS thread may be about to start, which is not visible yet. So check again after a moment.
            if not self._look_outside(DEADLOCK_AGAIN_AFTER) and not self._ready and self._is_deadlocked():
                self._when_deadlocked()
            return
        patience = wait = self.clock.patience(due, outside)
        if self._pool.may_shrink():
            # End the poll early to shrink the pool of greenlets.
            wait = _sooner(wait, self._pool.shrinks_at)
        if contended and self.when_contended is not None:
            wait = _sooner(wait, self._contended_at)
        began = monotonic()
        any_event = self._look_outside(wait)
        # The wait may also end early without an event: by these limits, a late byte in the wakeup pipe, or a signal.
        if not any_event and patience is not None and monotonic() - began >= patience and not self._ready:
            # The next poll expires the timers, after what came from outside before the jump.
            self.clock.jump(due)

    def _look_outside(self, seconds: float | None) -> bool:
        """Poll for up to `seconds` (None: until an event), then handle messages and timers."""
        self._asleep = True
        # `post` reads the flag after appending. So either its message is seen here, or it interrupts the wait.
        if self._inbox:
            seconds = 0
        elif seconds is not None:
            seconds = min(seconds, LONGEST_WAIT)
        try:
            events = self.poller.wait(seconds) if self._host is None else self._poll_for_host(seconds)
        except BaseException as error:  # noqa: BLE001  # does not concern the fiber that polls: passed on
            events = []
            self._when_signalled(error)
        # An event loop that runs the scheduler may wait at any time.
        self._asleep = self.when_ready is not None
        for fd, ready in events:
            self.descriptors.report(fd, ready)
        any_event = bool(events) or bool(self._inbox)
        self._empty_inbox()
        if self._pool.may_shrink() and monotonic() >= self._pool.shrinks_at:
            self._pool.shrink(monotonic())
        if contended and self.when_contended is not None and monotonic() >= self._contended_at:
            self._contended_at = monotonic() + self.when_contended()
        now = self._now()
        self._poll_at_switch = self.switches + SWITCHES_PER_POLL
        self._poll_at = now + SLICE
        return self.timers.expire(now) or any_event

    def _empty_inbox(self) -> None:
        inbox = self._inbox
        # Only the current messages: a message may post another one each time, and the fibers would never run.
        for _ in range(len(inbox)):
            function, args = inbox.popleft()
            function(*args)


def _sooner(wait: float | None, moment: float) -> float:
    """Limit a wait of so many seconds (None: forever) to the real time `moment`."""
    until_then = max(0.0, moment - monotonic())
    return until_then if wait is None else min(wait, until_then)


# --- the current carrier and fiber


@repeated_in("_core/engine/compiled/carriers.pxi")
def become_carrier(scheduler: Scheduler) -> None:
    """Make this OS thread run the fibers of `scheduler`."""
    carriers[scheduler.ident] = scheduler


@repeated_in("_core/engine/compiled/carriers.pxi")
def cease_carrier() -> None:
    """Make this OS thread an ordinary one again."""
    carriers.pop(get_ident(), None)


@repeated_in("_core/engine/compiled/carriers.pxi")
def running() -> Any:
    """Return the fiber that runs on this OS thread; None on a plain OS thread and inside the scheduler."""
    scheduler = carriers.get(get_ident())
    return None if scheduler is None else scheduler.running


# --- parts that a compiled engine extends


def compiled(part: T) -> T:
    """Return `part` unchanged: this engine has no compiled version."""
    return part


def supply(module: str, **names: Any) -> None:
    """Ignore the names: nothing is compiled here that could use them."""


def quick_socket_calls(readable: dict[str, Any], managed: dict[int, Any]) -> dict[str, Any]:
    """Return no methods: this engine uses those of `readable`."""
    return {}


def quick_condition_call(name: str, readable: T) -> T:
    """Return `readable` unchanged: this engine has no compiled version."""
    return readable


def refuse_by(function: Any, refuse: Callable[..., None], any_error: bool) -> bool:
    """Return False: nothing is compiled here."""
    return False
