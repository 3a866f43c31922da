"""The runtime: `run`, the start at first use, and the functions that running code calls.

An OS thread becomes a carrier by `run()` or by the first use of something that needs one; its running code is then the
root virtual thread. Only this module wires the parts; layers above take part as participants.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Literal, ParamSpec, TypeVar

from .arguments import check_function, checked_count, checked_period
from .background import BackgroundGroup
from .cancel import CancelNode, CancelScope
from .carrier import Carrier, without_run
from .carrier_end import end_with_os_thread
from .clock import Clock, MonotonicClock
from .current import carriers, on_carrier, running, started_here
from .engine import compiled, supply
from .fleet import Fleet
from .future import CANCELLED, FINISHED, RUNNING, Future, changing_futures
from .group import ThreadGroup
from .members import Phase
from .order import Order
from .originals import get_ident
from .participants import import_participant, participants
from .placement import schedulers_beside
from .replaced import latest
from .semaphore import semaphore_statistics
from .starter import set_starter
from .thread import VirtualThread
from .wait_queue import refuse_to_wait_inside_scheduler

__all__ = ["checkpoint", "current_thread", "now", "run", "spawn", "stopping"]

P = ParamSpec("P")
T = TypeVar("T")

# Pollers that are event loops. The module that runs them is a participant.
EVENT_LOOPS = ("asyncio", "uvloop")

# Names that the compiled parts of the core use.
supply(
    __name__,
    thread_type=VirtualThread,
    type_of_groups=ThreadGroup,
    type_of_background=BackgroundGroup,
    group_open=Phase.OPEN,
    future_type=Future,
    future_running=RUNNING,
    future_finished=FINISHED,
    future_cancelled=CANCELLED,
    futures_lock=changing_futures,
    statistics=semaphore_statistics,
)


def _start_lazily() -> VirtualThread:
    """Make the running code of a plain OS thread a root; the carrier ends with its OS thread."""
    refuse_to_wait_inside_scheduler()
    if sys.is_finalizing():
        raise RuntimeError("the interpreter is finalizing; no virtual threads can be started any more")
    carrier = Carrier(None, None, None)
    # Before the start, in which a participant makes it the guest of an event loop that runs here.
    without_run[carrier.scheduler.ident] = carrier
    carrier.start(patch=True)
    end_with_os_thread(carrier)
    return carrier.root


set_starter(_start_lazily)


def run(
    fn: Callable[..., T],
    /,
    *args: Any,
    carriers: int = 1,
    poller: Literal["epoll", "kqueue", "poll", "select", "asyncio", "uvloop"] | None = None,
    clock: Clock | None = None,
    order: Order | None = None,
    patch: bool = True,
    preempt: float | None = None,
) -> T:
    """Call `fn(*args)` as the root virtual thread of a new runtime, and return its result.

    Optional: the first `spawn`, scope, group or `sleep` starts a runtime too. A runtime started that way on this OS
    thread ends here, if it has no virtual threads left and the caller is in no scope. Before `run` returns, it joins
    the background threads that were spawned in it.

    Args:
        carriers: number of OS threads that run virtual threads. `fn` and its children run on the first one, which is
            the calling OS thread; `ThreadGroup(placement="spread")` uses all.
        poller: "epoll", "kqueue", "poll" or "select"; None: the best one of this platform. With "uvloop" or "asyncio",
            the runtime makes such an event loop and runs beside it, and `vthreads.aio` uses that loop.
        clock: the clock, for example `vthreads.testing.VirtualClock`; None: `time.monotonic`.
        order: the order of ready threads, for example `vthreads.testing.SeededOrder`; None: first in, first out.
        patch: make the standard library's blocking calls park, like `vthreads.patch()`.
        preempt: seconds (0.005 or more, which is how long CPython lets an OS thread run) after which a virtual thread
            that computes without a checkpoint yields, between two of its bytecodes; None: never. Only on the main OS
            thread, and with 1 carrier; uses SIGURG. Raises nothing in the thread. C functions, imports and finalizers
            are not interrupted. Code that relies on switches happening only at checkpoints needs locks, as with OS
            threads.

    Raises:
        TypeError: calling `fn` would have no effect: it is not callable, or a coroutine or generator function.
        RuntimeError: the caller is a virtual thread already, or cannot be preempted.
        ValueError: an argument is out of range.
        DeadlockError: every virtual thread was parked and nothing could unpark one.
    """
    check_function(fn, "run")
    preempt = None if preempt is None else checked_period(preempt, "preempt")
    if poller in EVENT_LOOPS and (clock is not None or order is not None):
        raise ValueError(
            f"poller={poller!r} with clock= or order=: an event loop has its own time and order; "
            "omit poller=, or clock= and order="
        )
    if checked_count(carriers, "carriers", 1) > 1:
        _check_arguments_of_several(carriers, poller, clock, order, preempt)
    if on_carrier():
        here = without_run.get(get_ident())
        if here is None or not here.stop_if_unused():
            raise RuntimeError(
                f"run() inside {running()!r}: a runtime runs here already; call {fn!r} directly or spawn it"
            )
    event_loop = poller if poller in EVENT_LOOPS else None
    carrier = Carrier(None if event_loop else poller, clock, order)
    fleet = Fleet(carrier, poller, patch)
    try:
        _start(carrier, patch, event_loop, preempt)
        try:
            if carriers > 1:
                fleet.start(carriers)
            return latest(fn)(*map(latest, args))  # type: ignore[no-any-return]  # the result of `fn`
        except KeyboardInterrupt:
            for scheduler in schedulers_beside(carrier.scheduler):
                scheduler.background.cancel("KeyboardInterrupt in the root")
            raise
        finally:
            try:
                carrier.join()
            finally:
                fleet.end()
    finally:
        carrier.stop()


def _check_arguments_of_several(
    carriers: int, poller: str | None, clock: Clock | None, order: Order | None, preempt: float | None
) -> None:
    for name, value in {"clock": clock, "order": order}.items():
        if value is not None:
            raise ValueError(
                f"carriers={carriers} with {name}={value!r}: OS threads run in real time and in no fixed order; "
                "use 1 carrier"
            )
    if poller in EVENT_LOOPS:
        raise ValueError(f"carriers={carriers} with poller={poller!r}: an event loop runs on 1 carrier; omit poller=")
    if preempt is not None:
        raise ValueError(
            f"carriers={carriers} with preempt={preempt!r}: only threads of the main OS thread can be preempted; "
            "use 1 carrier"
        )


def _start(carrier: Carrier, patch: bool, event_loop: str | None, preempt: float | None) -> None:
    carrier.start(patch)
    if preempt is not None:
        import_participant("_preemption")
    for participant in participants():
        if event_loop is not None and participant.hosting is not None:
            participant.hosting(carrier.scheduler, event_loop)
        if preempt is not None and participant.preempting is not None:
            participant.preempting(carrier.scheduler, preempt)


# --- functions that running code calls


def spawn(fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
    """Start a virtual thread that belongs to no block: it is joined when its carrier ends.

    That is at the end of the `run()` or of the OS thread in which it was spawned, at the latest at interpreter exit. A
    failure is reported at once through `threading.excepthook`. Otherwise like `ThreadGroup.spawn`: it runs at once up
    to its first park. Not a checkpoint. Starts the runtime.

    Raises:
        TypeError: calling `fn` would have no effect: it is not callable, or a coroutine or generator function.
        GroupClosed: the runtime is ending.
    """
    # Inside the scheduler no virtual thread runs; the new thread starts at the next switch.
    scheduler = carriers.get(get_ident())
    if scheduler is None:
        # The caller has looked up the function and its arguments, as in `spawn(retry, time.sleep)`, before this starts
        # the runtime, which patches. So replace originals among them, which mypy cannot match with the types of `fn`.
        scheduler = started_here()._scheduler
        fn, args, kwargs = latest(fn), tuple(map(latest, args)), {name: latest(value) for name, value in kwargs.items()}  # type: ignore[assignment]  # see above
    elif scheduler.running is not None:
        scheduler = started_here()._scheduler
    background: BackgroundGroup = scheduler.background
    return background.spawn(fn, *args, **kwargs)


def now() -> float:
    """Return the runtime's time in seconds, as deadlines use it. Not a checkpoint; thread-safe.

    `time.monotonic()`, unless `run(clock=…)` set another clock.
    """
    thread = running()
    return MonotonicClock.now() if thread is None else thread._scheduler.clock.now()


def current_thread() -> VirtualThread:
    """Return the virtual thread that runs this code. Not a checkpoint. Makes a plain OS thread a carrier."""
    return started_here()


@compiled
def checkpoint() -> None:
    """Run a checkpoint: raise what is pending, and let every ready virtual thread run once.

    Does nothing on a plain OS thread.
    """
    thread = running()
    if thread is not None:
        thread._yield_now()


def stopping() -> bool:
    """Return whether a group around the running code was shut down, so that it should end. Not a checkpoint."""
    thread = running()
    node: CancelNode | None = None if thread is None else thread._innermost
    while node is not None:
        if isinstance(node, CancelScope) and node._group is not None and node._group._stopping:
            return True
        node = node._parent
    return False
