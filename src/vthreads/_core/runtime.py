"""Start, end and deadlock of the runtime: the one place that wires the parts.

An OS thread becomes a carrier by `run()` or by the first use of something that needs one; its running code is then the
root virtual thread. Layers above take part in starting and stopping through the lists of hooks.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
import threading
from collections.abc import Callable
from contextvars import copy_context
from types import FrameType
from typing import Any, NoReturn, ParamSpec, TypeVar

from ..errors import DeadlockError
from .background import BackgroundGroup
from .cancel import CancelNode, CancelScope
from .clock import Clock, MonotonicClock
from .current import carriers, on_carrier, running, set_starter, started_here
from .deadlock import describe_deadlock, threads_below
from .engine import Scheduler, State, become_carrier, cease_carrier, compiled, make_poller
from .future import Future
from .order import FifoOrder, Order
from .originals import get_ident
from .thread import VirtualThread

__all__ = [
    "Carrier",
    "after_fork_hooks",
    "checkpoint",
    "current_thread",
    "deadlock_notes",
    "ending_os_threads",
    "exit_process",
    "forking_os_threads",
    "frames_of_os_threads",
    "is_main_carrier",
    "join_at_exit",
    "main_over_hooks",
    "now",
    "outside_sources",
    "preempt_hooks",
    "run",
    "spawn",
    "start_hooks",
    "stop_hooks",
    "stopping",
]

P = ParamSpec("P")
T = TypeVar("T")

# Called with the new scheduler after a carrier started, and with the old one before it stops.
start_hooks: list[Callable[[Scheduler, bool], None]] = []
stop_hooks: list[Callable[[Scheduler], None]] = []
# Called with the new scheduler and the seconds, if `run` was told to preempt.
preempt_hooks: list[Callable[[Scheduler, float], None]] = []
# Called when the main thread has nothing left but to join others; what comes back is called after that.
main_over_hooks: list[Callable[[], Callable[[], None]]] = []
# Called in the child of a fork.
after_fork_hooks: list[Callable[[], None]] = []
# Asked when all is parked: true if something outside could still unpark somebody on this carrier.
outside_sources: list[Callable[[Scheduler], bool]] = []
# Asked for what to add to a `DeadlockError`, between two switches of its carrier; an empty text adds nothing.
deadlock_notes: list[Callable[[Scheduler], str]] = []
# OS threads that belong to the runtime and do nothing of their own accord, by ident.
own_os_threads: set[int] = set()
# OS threads that have run their last Python code, by ident, as long as the interpreter still shows them.
ending_os_threads: set[int] = set()
# OS threads that are forking, by ident: `threading` looks after itself in the child before the runtime does.
forking_os_threads: set[int] = set()


# --- starting and stopping a carrier


def _give_groups(scheduler: Scheduler) -> None:
    scheduler.background = BackgroundGroup(scheduler)
    scheduler.threads = BackgroundGroup(scheduler, "threads")
    scheduler.daemons = BackgroundGroup(scheduler, "daemons")


class Carrier:
    """One OS thread with its scheduler and its root."""

    def __init__(
        self, poller: str | None, clock: Clock | None, order: Order | None, root: VirtualThread | None = None
    ) -> None:
        self.scheduler = Scheduler(
            make_poller(poller),
            MonotonicClock() if clock is None else clock,
            FifoOrder() if order is None else order,
            is_stuck=self._is_stuck,
            when_stuck=self._deadlocked,
            when_signalled=self._signalled,
        )
        _give_groups(self.scheduler)
        self.scheduler.root = self.root = root or self._new_root()

    def _new_root(self) -> VirtualThread:
        root = VirtualThread(self.scheduler, copy_context())
        # To `threading`, the root is still the OS thread that it was.
        root.thread_ident = self.scheduler.ident
        root.name = threading.current_thread().name
        return root

    def start(self, patch: bool) -> None:
        self.scheduler.adopt(self.root)
        become_carrier(self.scheduler)
        for hook in start_hooks:
            hook(self.scheduler, patch)

    def join(self) -> None:
        """Wait for the background group and for the standard library's threads; daemons are cancelled."""
        scheduler = self.scheduler
        # Each may start one of the other kind.
        while len(scheduler.background) or len(scheduler.threads):
            scheduler.background.join(self.root)
            scheduler.threads.join(self.root)
        scheduler.daemons.end(self.root, "a daemon ends with its carrier")

    def stop(self) -> None:
        for hook in reversed(stop_hooks):
            hook(self.scheduler)
        cease_carrier()
        self.scheduler.close()
        # In the child of a fork the root may be a thread whose end would be the end of the process: not this one.
        self.root.group = None
        self.root.end(None, None)

    def _signalled(self, error: BaseException) -> None:
        self.root.interrupt_with(error, polite=False)

    def _is_stuck(self) -> bool:
        """All is parked: is nothing left that could unpark one?"""
        return not _other_os_threads() and not any(source(self.scheduler) for source in outside_sources)

    def _deadlocked(self) -> None:
        """Tell the root; or, if its wait cannot be given up, whoever can be reached."""
        parked = [thread for thread in threads_below(self.scheduler) if thread.state is State.PARKED]
        error = DeadlockError(describe_deadlock(parked))
        for tell in deadlock_notes:
            note = tell(self.scheduler)
            if note:
                error.add_note(note)
        for thread in [self.root, *parked]:
            thread.interrupt_with(error, polite=False)
            if thread.state is not State.PARKED:
                return


def _other_os_threads() -> bool:
    # One that was just started has no frame yet, but a place in limbo; one that ends has a frame, but no place left.
    starting: dict[Any, Any] = threading._limbo  # type: ignore[attr-defined]  # not in the type stubs
    known: dict[int, Any] = threading._active  # type: ignore[attr-defined]  # likewise
    # Only the idents: with the frames it would refer to itself, by its own frame.
    alive = set(frames_of_os_threads())
    ending_os_threads.intersection_update(alive)
    over = ending_os_threads - known.keys()
    return bool(starting) or bool(alive - own_os_threads - over - {get_ident()})


def frames_of_os_threads() -> dict[int, FrameType]:
    """The innermost Python frame of each OS thread that has one, by ident.

    Python 3.11 holds a lock while it collects the frames. Were the garbage collector to run Python code in the midst of
    that, an OS thread that ends then would wait for the lock while it holds the GIL, and everything would stand still.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        return sys._current_frames()
    finally:
        if collecting:
            gc.enable()


def is_main_carrier(scheduler: Scheduler) -> bool:
    """Whether `scheduler` runs on the main OS thread, the one that signals go to."""
    # After a fork in a virtual thread, that one is the main thread to `threading`, by its own number.
    return threading.main_thread().ident in (scheduler.ident, scheduler.root.thread_ident)


def _start_lazily() -> VirtualThread:
    """The running code of a plain OS thread becomes a root; the carrier ends with its OS thread."""
    if on_carrier():
        raise RuntimeError(
            "a blocking call was made from inside the scheduler (by a finalizer or a trace function); "
            "let such code hand its work to a virtual thread"
        )
    if sys.is_finalizing():
        raise RuntimeError("the interpreter is finalizing; no virtual threads can be started any more")
    carrier = Carrier(None, None, None)
    carrier.start(patch=True)
    os_thread = threading.current_thread()
    if os_thread is threading.main_thread():
        join_at_exit(carrier)
    else:
        _join_at_end_of(os_thread, carrier)
    return carrier.root


set_starter(_start_lazily)


def run(
    fn: Callable[..., T],
    /,
    *args: Any,
    carriers: int = 1,
    poller: str | None = None,
    clock: Clock | None = None,
    order: Order | None = None,
    patch: bool = True,
    preempt: float | None = None,
) -> T:
    """Call `fn(*args)` as the root virtual thread of a runtime of its own, and return its result.

    Optional: the first `spawn`, scope, group or `sleep` starts a runtime as well. Before it returns it joins the
    background threads that were spawned in it.

    Args:
        carriers: OS threads that run virtual threads; this version runs one.
        poller: "epoll", "kqueue", "poll" or "select"; None: the best of this platform.
        clock: what tells the time, `vthreads.testing.VirtualClock` for example; None: `time.monotonic`.
        order: which ready thread is next, `vthreads.testing.SeededOrder` for example; None: first in, first out.
        patch: make the standard library's blocking calls park, as `vthreads.patch()`.
        preempt: seconds (from 0.005 on, which is how long CPython lets an OS thread run) after which a virtual thread
            that computes without a checkpoint lets others run, between two of its bytecodes; None: never. Only on the
            main OS thread. Nothing is raised there. A C function is not interrupted, nor are imports and finalizers;
            and code that relies on switches at checkpoints alone needs locks, as with OS threads. It takes SIGURG.

    Raises:
        RuntimeError: the caller is a virtual thread already; or it cannot be preempted.
        ValueError: an argument is out of its range.
        DeadlockError: every virtual thread was parked and nothing could unpark one.
    """
    if on_carrier():
        raise RuntimeError(f"run() inside {running()!r}: a runtime runs here already; call {fn!r} directly or spawn it")
    if carriers != 1:
        raise ValueError(f"carriers={carriers}: this version runs all virtual threads of run() on 1 carrier")
    carrier = Carrier(poller, clock, order)
    try:
        carrier.start(patch)
        if preempt is not None:
            for hook in preempt_hooks:
                hook(carrier.scheduler, preempt)
        try:
            return fn(*args)
        except KeyboardInterrupt:
            carrier.scheduler.background.cancel("KeyboardInterrupt in the root")
            raise
        finally:
            carrier.join()
    finally:
        carrier.stop()


# --- the end of an OS thread that became a carrier


def _join_at_end_of(os_thread: threading.Thread, carrier: Carrier) -> None:
    """The last thing a `threading.Thread` does is to call its `_delete`, on 3.11 to 3.14: end the carrier there."""

    def delete() -> None:
        try:
            if carriers.get(get_ident()) is carrier.scheduler:
                try:
                    carrier.join()
                except BaseException as error:  # noqa: BLE001  # nobody above: reported like any failure of a thread
                    details = threading.ExceptHookArgs((type(error), error, error.__traceback__, os_thread))
                    threading.excepthook(details)
                carrier.stop()
        finally:
            type(os_thread)._delete(os_thread)  # type: ignore[attr-defined]  # not in the type stubs

    os_thread._delete = delete  # type: ignore[attr-defined]  # not in the type stubs


def join_at_exit(carrier: Carrier) -> None:
    """Join before `concurrent.futures` and `threading` join theirs: all of that happens in `threading._shutdown`.

    It tells the pools first, in the reverse order of their registration, and then joins OS threads, which blocks the
    carrier. In between come virtual threads that `threading` started: a pool's among them have just been told. They may
    wait for the end of the main thread, so it is over by then.
    """
    original = threading._shutdown  # type: ignore[attr-defined]  # not in the type stubs

    def shutdown() -> None:
        threading._shutdown = original  # type: ignore[attr-defined]
        if carriers.get(get_ident()) is not carrier.scheduler:
            original()
            return
        ended_by = _join_main(carrier, carrier.scheduler.background.join)
        if isinstance(ended_by, KeyboardInterrupt):
            # As plain Python joins no thread any more after Ctrl-C at this point: one press is for all.
            carrier.scheduler.threads.cancel("KeyboardInterrupt in the main thread")
            _join_main(carrier, lambda root: carrier.join())
            carrier.stop()
            return
        deadlocked = isinstance(ended_by, DeadlockError)

        def join_threads() -> None:
            nonlocal deadlocked
            undo = [hook() for hook in main_over_hooks]
            deadlocked |= isinstance(_join_main(carrier, lambda root: carrier.join()), DeadlockError)
            carrier.stop()
            for put_back in undo:
                put_back()

        threading._threading_atexits.insert(0, join_threads)  # type: ignore[attr-defined]  # likewise
        try:
            original()
        finally:
            # A pool's own function may have failed, which ends all of that.
            if carriers.get(get_ident()) is carrier.scheduler:
                carrier.stop()
        if deadlocked:
            exit_process(1)

    threading._shutdown = shutdown  # type: ignore[attr-defined]


def _join_main(carrier: Carrier, join: Callable[[VirtualThread], None]) -> BaseException | None:
    """Join at the end of the main thread; what ended that, and was shown."""
    if isinstance(getattr(sys, "last_value", None), KeyboardInterrupt):
        carrier.scheduler.background.cancel("KeyboardInterrupt in the main thread")
    try:
        join(carrier.root)
    except BaseException as error:  # noqa: BLE001  # nobody above: shown as the interpreter shows it
        sys.excepthook(type(error), error, error.__traceback__)
        return error
    return None


def exit_process(status: int) -> NoReturn:
    """End this process as the end of a main script does, with `status`."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            # Closed or broken, and the process ends: there is nowhere left to say so.
            pass
    os._exit(status)


# --- small questions


def spawn(fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
    """Start a virtual thread that belongs to no block: it is joined when its carrier ends.

    At the latest at interpreter exit, or at the end of the `run()` or of the OS thread it was spawned in. Its failure
    is reported at once through `threading.excepthook`. Otherwise as `ThreadGroup.spawn`: it runs at once up to its
    first park, and this is no checkpoint. Starts the runtime.

    Raises:
        GroupClosed: the runtime is ending.
    """
    background: BackgroundGroup = started_here().scheduler.background
    return background.spawn(fn, *args, **kwargs)


def now() -> float:
    """The runtime's time in seconds, as deadlines use it. Not a checkpoint; thread-safe.

    `time.monotonic()` unless `run(clock=…)` gave another clock.
    """
    thread = running()
    return MonotonicClock.now() if thread is None else thread.scheduler.clock.now()


def current_thread() -> VirtualThread:
    """The virtual thread that runs this code. Not a checkpoint. A plain OS thread becomes a carrier by asking."""
    return started_here()


@compiled
def checkpoint() -> None:
    """Be a checkpoint and nothing else: raise what is pending, let every ready virtual thread run once.

    Does nothing on a plain OS thread.
    """
    thread = running()
    if thread is not None:
        thread.yield_now()


def stopping() -> bool:
    """Whether a group around the running code was shut down: end soon. Not a checkpoint."""
    thread = running()
    node: CancelNode | None = None if thread is None else thread.innermost
    while node is not None:
        if isinstance(node, CancelScope) and node.group is not None and node.group.stopping:
            return True
        node = node._parent
    return False
