"""The engine in readable Python: the specification that a compiled engine has to meet.

The contract is in the package's docstring. There is no hub: the fiber that parks picks the next ready one and switches
to it, and polls if there is none. Finished greenlets are kept and run the next fiber, since making one costs 8 µs and
reusing one about 1 µs.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from contextvars import Context
from math import inf
from time import monotonic
from types import FrameType
from typing import Any, TypeVar

from greenlet import getcurrent, greenlet

from ..clock import Clock
from ..order import Order
from ..originals import RLock, get_ident
from . import states
from .descriptors import Descriptors
from .pollers import Poller
from .states import (
    ABORTED,
    LONGEST_WAIT,
    NOTHING,
    SHRINK_BY,
    SHRINK_PAUSE,
    SLICE,
    STUCK_AGAIN_AFTER,
    SWITCHES_PER_POLL,
    TIMED_OUT,
    Signal,
    State,
    carriers,
)
from .timers import Timers

__all__ = [
    "Fiber",
    "Outcome",
    "Roster",
    "Scheduler",
    "Section",
    "become_carrier",
    "cease_carrier",
    "compiled",
    "quick_socket_calls",
    "running",
]

NEW, READY, RUNNING, PARKED, ENDED = State

Abort = Callable[[], bool]
T = TypeVar("T")

# A reentrant lock for a few instructions. A finalizer may run inside.
Section = RLock


class Fiber:
    """What the scheduler switches. It stays on its scheduler for life: greenlets cannot change their OS thread."""

    __slots__ = (
        "_abort", "_greenlet", "_wake", "context", "parked_at", "pending", "scheduler", "state", "waits_for",
    )  # fmt: skip

    def __init__(self, scheduler: Scheduler, context: Context | None) -> None:
        self.scheduler = scheduler
        self.context = context
        self.state = NEW
        # True while anything may have to be raised at a checkpoint: the one flag that checkpoints look at.
        self.pending = False
        self._greenlet: greenlet | None = None
        self._abort: Abort | None = None
        self._wake: Any = NOTHING
        # When it parked last, and what for if no frame tells: a name and an object, set by calls that are compiled.
        self.parked_at = -inf
        self.waits_for: tuple[str, Any] | None = None

    def run(self) -> None:
        """What the fiber does. Must not raise."""
        raise NotImplementedError(f"{type(self).__name__} brings its own run()")

    def frame(self) -> FrameType | None:
        """The innermost frame of the fiber, wherever it is; None before its first run and after its end."""
        if self._greenlet is getcurrent() or self.scheduler.running is self:
            # Parked or not, it is the one whose greenlet runs: whoever finds nobody ready polls on its own stack.
            return sys._getframe(1)
        return None if self._greenlet is None else self._greenlet.gr_frame

    # --- checkpoints

    def check(self) -> None:
        """The beginning of every checkpoint: raise what is pending, and yield after a long run.

        Nothing has happened yet when it raises.
        """
        if self.pending:
            self.raise_due()
        scheduler = self.scheduler
        if scheduler._now() >= scheduler.slice_end:
            scheduler.yield_now()
            if self.pending:
                self.raise_due()

    def give_way(self) -> None:
        """Let others run after a long run, for calls that are no checkpoints but may be all that a loop does."""
        scheduler = self.scheduler
        if scheduler._now() >= scheduler.slice_end:
            scheduler.yield_now()

    def yield_now(self) -> None:
        """A checkpoint that lets every ready fiber run once."""
        if self.pending:
            self.raise_due()
        self.scheduler.yield_now()
        if self.pending:
            self.raise_due()

    def park(self, abort: Abort | None = None, timeout: float | None = None) -> Any:
        """Park, after `check()`: what the fiber was unparked with, or TIMED_OUT after `timeout` seconds.

        Raises what becomes due meanwhile, if `abort()` could withdraw the wait; then nothing has happened.
        """
        scheduler = self.scheduler
        deadline = inf if timeout is None else scheduler._now() + timeout
        if self.pending:
            return self.park_pending(abort, deadline)
        answer = scheduler.park(abort, deadline)
        if answer is ABORTED:
            self.raise_aborted()
        return answer

    def raise_due(self) -> None:
        """Raise what has to be raised now, if anything: `pending` says that there may be something."""

    def park_pending(self, abort: Abort | None, deadline: float) -> Any:
        """`park` while `pending` is set."""
        return self.scheduler.park(abort, deadline)

    def raise_aborted(self) -> None:
        """Raise what `park` was aborted for."""

    # --- being unparked

    def may_be_roused(self) -> bool:
        """Asked on the fiber's OS thread before `rouse` takes effect."""
        return True

    def unpark(self, value: Any = True) -> bool:
        """Make ready, with `value` as the answer of `park`. Thread-safe; true unless it was no longer parked."""
        scheduler = self.scheduler
        if get_ident() != scheduler.ident:
            scheduler.post(self._unpark_here, value)
            return True
        return self._unpark_here(value)

    def _unpark_here(self, value: Any) -> bool:
        if self.state is PARKED:
            self._wake = value
            self.scheduler.make_ready(self)
            return True
        if self._wake is NOTHING and self.state in (RUNNING, READY):
            # It stands in a queue but has not parked yet: a finalizer got between, which may even have spawned.
            # Its park will return at once.
            self._wake = value
            return True
        return False

    def _take_wake(self) -> Any:
        wake, self._wake = self._wake, NOTHING
        return wake

    def rouse(self) -> None:
        """Let the fiber look after itself: if its wait can be withdrawn, `park` returns ABORTED. Thread-safe."""
        if get_ident() == self.scheduler.ident:
            self._rouse_here()
        else:
            self.scheduler.post(self._rouse_here)

    def _rouse_here(self) -> None:
        if self.state is PARKED and self.may_be_roused():
            self._withdraw(ABORTED)

    def expire(self) -> None:
        """The deadline of `park` has come."""
        if self.state is PARKED:
            self._withdraw(TIMED_OUT)

    def _withdraw(self, answer: Signal) -> None:
        if self._abort is None or self._abort():
            self._wake = answer
            self.scheduler.make_ready(self)


class Scheduler:
    """Run queue, timers, poller and inbox of one carrier.

    Args:
        poller, clock, order: see their contracts.
        is_stuck: asked when all are parked and no timer, descriptor or `outside` work is left: could nothing else
            unpark one? Asked twice, a moment apart, before `when_stuck` is called, which makes one ready.
        when_signalled: called with what a foreign signal handler raised inside a poll.
    """

    def __init__(
        self,
        poller: Poller,
        clock: Clock,
        order: Order,
        is_stuck: Callable[[], bool],
        when_stuck: Callable[[], None],
        when_signalled: Callable[[BaseException], None],
    ) -> None:
        self.ident = get_ident()
        self.clock = clock
        self.poller = poller
        self.timers = Timers()
        self.descriptors = Descriptors(poller)
        self.running: Any = None
        # Calls under way elsewhere that will unpark somebody: OS threads working for a fiber.
        self.outside = 0
        # Told of what the fibers do, if anybody wants to know: see the contract.
        self.observer: Any = None
        self.slice_end = inf
        # How often somebody was chosen to run next.
        self.switches = 0
        self.closed = False
        # For the layers above: the groups of `vthreads.spawn` and of threads that the standard library starts, and the
        # root fiber.
        self.background: Any = None
        self.threads: Any = None
        self.daemons: Any = None
        self.root: Any = None
        self._is_stuck = is_stuck
        self._when_stuck = when_stuck
        self._when_signalled = when_signalled
        self._now = clock.now
        self._ready = order.run_queue()
        # Who runs before anyone else, the latest first: above all fibers whose spawn started another one.
        self._spawners: list[Fiber] = []
        self._inbox: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()
        self._asleep = False
        self._poll_at_switch = 0
        self._poll_at = -inf
        self._starter = greenlet(self._start_greenlets)
        self._pool: list[greenlet] = []
        # How many of them nobody has taken since the last look, and when the next one is due.
        self._unwanted = 0
        self._shrink_at = -inf
        self._next: Fiber | None = None

    # --- from any OS thread

    def post(self, function: Callable[..., Any], *args: Any) -> None:
        """Have `function(*args)` called on the carrier, between two switches. It must not park or raise."""
        self._inbox.append((function, args))
        if self._asleep:
            self.poller.interrupt()

    # --- on the carrier

    def adopt(self, fiber: Fiber) -> None:
        """The code that is running becomes `fiber`."""
        fiber.state = RUNNING
        self.running = fiber
        self.slice_end = self._now() + SLICE

    def make_ready(self, fiber: Fiber) -> None:
        """Queue a parked or new fiber."""
        if self.observer is not None:
            self.observer.readied(fiber)
        fiber.state = READY
        self._ready.append(fiber)

    def make_next(self, fiber: Fiber) -> None:
        """Let a new fiber run at the next switch, before anyone else."""
        fiber.state = READY
        self._spawners.append(fiber)

    def start(self, fiber: Fiber) -> None:
        """Run a new fiber at once, up to its first park; then the caller goes on, before anyone else.

        To the others that is one run, like a call, and has one slice.
        """
        spawner: Fiber = self.running
        # As in `_take_next`, whatever comes before the switch is on no fiber: it must not park this one.
        self.running = None
        spawner.state = READY
        spawner._greenlet = getcurrent()
        self._spawners.append(spawner)
        self._switch_to(fiber)

    def park(self, abort: Abort | None = None, deadline: float = inf) -> Any:
        """Run others until the running fiber is unparked; the value it was unparked with, TIMED_OUT or ABORTED."""
        fiber: Fiber = self.running
        fiber._abort = abort
        fiber._greenlet = getcurrent()
        fiber.parked_at = self._now()
        # From here on whoever unparks it makes it ready. If somebody did before, a finalizer, it goes on at once.
        fiber.state = PARKED
        if fiber.state is PARKED and fiber._wake is not NOTHING:
            fiber.state = RUNNING
        else:
            if self.observer is not None:
                self.observer.parked(fiber)
            timer = self.timers.add(deadline, fiber) if deadline < inf else None
            self._switch_to(self._take_next())
            if timer is not None:
                self.timers.cancel(timer)
        fiber._abort = None
        return fiber._take_wake()

    def yield_now(self) -> None:
        """Let every fiber that is ready run once."""
        fiber: Fiber = self.running
        fiber._greenlet = getcurrent()
        self.make_ready(fiber)
        self._switch_to(self._take_next())

    def close(self) -> None:
        """End the pooled greenlets and give the poller back. No fiber but the running one may be left."""
        self.closed = True
        self._next = None
        self._end_pooled(len(self._pool))
        self._starter.parent = getcurrent()
        self._starter.switch(None)
        self.poller.close()

    # --- switching

    def _take_next(self) -> Fiber:
        # Nobody runs while this looks for the next one: a signal handler or finalizer in here is on no fiber.
        self.running = None
        self.switches += 1
        now = self._now()
        if self.switches >= self._poll_at_switch or now >= self._poll_at:
            self._look_outside(0)
        if self._inbox:
            self._empty_inbox()
        if self._spawners:
            return self._spawners.pop()
        if not self._ready:
            while not self._ready:
                self._idle()
                if self._spawners:
                    self.slice_end = self._now() + SLICE
                    return self._spawners.pop()
            now = self._now()
        self.slice_end = now + SLICE
        fiber: Fiber = self._ready.popleft()
        return fiber

    def _switch_to(self, fiber: Fiber) -> None:
        if self.observer is not None:
            self.observer.runs(fiber)
        target = fiber._greenlet
        is_new = False
        if target is None:
            is_new = not self._pool
            target = greenlet(self._carry, self._starter) if is_new else self._pool.pop()
            self._unwanted = min(self._unwanted, len(self._pool))
            target.gr_context = fiber.context
            self._next = fiber
        fiber.state = RUNNING
        self.running = fiber
        # This frame may stay for long, and must not keep the other fiber alive.
        del fiber
        if is_new:
            self._starter.switch(target)
        elif target is not getcurrent():
            target.switch()

    def _start_greenlets(self, target: greenlet | None) -> None:
        """The life of the starter: it starts every new greenlet, and gets the next one when it is switched to again.

        A greenlet begins with the recursion depth of the one that starts it. If each were started by whichever parked
        before, the depths would add up to a RecursionError after some hundred.
        """
        while target is not None:
            target = target.switch()

    def _carry(self, *_: Any) -> None:
        """The life of a greenlet: run fiber after fiber. It ends when it is switched to with none to run."""
        me = getcurrent()
        while self._next is not None:
            fiber, self._next = self._next, None
            fiber.run()
            fiber.state = ENDED
            if self.observer is not None:
                self.observer.ended(fiber)
            fiber._greenlet = None
            del fiber
            self._pool.append(me)
            self._switch_to(self._take_next())

    def _shrink_pool(self, now: float) -> None:
        """End greenlets that nobody has wanted for a while: after a rush, what it needed is given back."""
        spare = min(self._unwanted, len(self._pool) - states.POOL_SIZE)
        self._end_pooled(max(0, min(spare, SHRINK_BY)))
        self._unwanted = len(self._pool)
        self._shrink_at = now + (SHRINK_PAUSE if spare > SHRINK_BY else states.SHRINK_EVERY)

    def _end_pooled(self, count: int) -> None:
        """End the `count` greenlets that have been in the pool for longest."""
        ended, self._pool[:count] = self._pool[:count], []
        for pooled in ended:
            pooled.parent = getcurrent()
            pooled.switch()

    # --- the outside world

    def _idle(self) -> None:
        """Nobody is ready: wait for a timer, a descriptor or a message."""
        due = self.timers.due()
        outside = self.outside > 0 or self.descriptors.waiting > 0
        if due == inf and not outside and not self._inbox and self._is_stuck():
            # An OS thread may be about to start, which nobody can see yet.
            if not self._look_outside(STUCK_AGAIN_AFTER) and not self._ready and self._is_stuck():
                self._when_stuck()
            return
        patience = self.clock.patience(due, outside)
        if len(self._pool) > states.POOL_SIZE:
            # Woken for nothing if it must be, until the pool has its size.
            until_then = max(0.0, self._shrink_at - monotonic())
            patience = until_then if patience is None else min(patience, until_then)
        heard = self._look_outside(patience)
        # Without a timer the wait may still end for nothing: a late byte in the wakeup pipe, a signal.
        if not heard and not self._ready and due < inf:
            self.clock.jump(due)
            self.timers.expire(self._now())

    def _look_outside(self, seconds: float | None) -> bool:
        """Poll for up to `seconds` (None: until something comes), then see to timers and messages."""
        self._asleep = True
        # Who posts looks at the flag after appending: either it is seen here, or it interrupts the wait.
        if self._inbox:
            seconds = 0
        elif seconds is not None:
            seconds = min(seconds, LONGEST_WAIT)
        try:
            events = self.poller.wait(seconds)
        except BaseException as error:  # noqa: BLE001  # of no concern to whichever fiber happened to poll; told to the layer above
            events = []
            self._when_signalled(error)
        self._asleep = False
        for fd, ready in events:
            self.descriptors.report(fd, ready)
        heard = bool(events) or bool(self._inbox)
        self._empty_inbox()
        if len(self._pool) > states.POOL_SIZE and monotonic() >= self._shrink_at:
            self._shrink_pool(monotonic())
        now = self._now()
        self._poll_at_switch = self.switches + SWITCHES_PER_POLL
        self._poll_at = now + SLICE
        return self.timers.expire(now) or heard

    def _empty_inbox(self) -> None:
        inbox = self._inbox
        # Only what is there now: a message may post another one.
        for _ in range(len(inbox)):
            function, args = inbox.popleft()
            function(*args)


# --- who runs here


def become_carrier(scheduler: Scheduler) -> None:
    """This OS thread runs the fibers of `scheduler` from now on."""
    carriers[scheduler.ident] = scheduler


def cease_carrier() -> None:
    """This OS thread is no carrier any more."""
    carriers.pop(get_ident(), None)


def running() -> Any:
    """The fiber that runs on this OS thread; None on a plain OS thread and inside the scheduler."""
    scheduler = carriers.get(get_ident())
    return None if scheduler is None else scheduler.running


# --- what a compiled engine does besides


class Roster:
    """The base of a group, which keeps what it needs by itself."""

    __slots__ = ()


class Outcome:
    """The base of a future, which does the same."""

    __slots__ = ()


def compiled(part: T) -> T:
    """Leave `part` as it is: nothing is compiled here."""
    return part


def quick_socket_calls(readable: dict[str, Any], managed: dict[int, Any]) -> dict[str, Any]:
    """None: the readable calls are those of this engine."""
    return {}
