"""Signals on the main carrier: Ctrl-C interrupts the root; each handler runs on its own virtual thread.

Python calls a handler between any two bytecodes of the main OS thread, whichever virtual thread runs, or inside a poll.
A trampoline replaces each handler. If it interrupts the runtime's own code, the handler waits for the next switch.
Otherwise it runs at once, on a new virtual thread, so that it may block. An exception of the handler is raised in the
root: at once if it interrupted Python code of the root, otherwise at a checkpoint. `overdue` handles a thread that
does not switch, so that neither would happen.

Ctrl-C with Python's default handler raises `KeyboardInterrupt` in the root. The first press respects shields and
cleanup, the second cuts them short, and the third is raised in whatever code runs.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # not in the type stubs
import signal
import sys
import threading
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from types import FrameType
from typing import Any

from .._core.cancel import CancelScope
from .._core.carrier import is_main_carrier
from .._core.current import carriers, running
from .._core.deadlock import threads_of_run
from .._core.engine import Scheduler
from .._core.originals import write_fd
from .._core.participants import Participant, participate
from .._core.spawn_site import is_own_frame
from .._core.thread import VirtualThread
from .._core.wait_queue import WaitQueue
from .._os_threads.held_up import leave_calls_behind
from .overdue import Overdue, Postponed

__all__ = [
    "at_interrupt",
    "get_handler",
    "handled",
    "prompt_handlers",
    "quiet_handlers",
    "set_handler",
    "set_wakeup_fd",
]

Handler = Callable[[int, FrameType | None], Any]

original_signal, original_getsignal = signal.signal, signal.getsignal
original_set_wakeup_fd = signal.set_wakeup_fd
default_int_handler = signal.default_int_handler


class _Signals:
    """Changes of the main carrier to the signal handlers of the process."""

    def __init__(self) -> None:
        self.scheduler: Scheduler | None = None
        # The user's handlers by signal, for each signal that has a trampoline now.
        self.handlers: dict[int, Handler] = {}
        # The wakeup fd that the user set. The interpreter's own slot holds the fd of the poller.
        self.users_wakeup_fd = -1
        self.presses = 0
        # The `KeyboardInterrupt` of the last press. While others refer to it, it has not been handled yet.
        self.pressed: KeyboardInterrupt | None = None
        # The last exception of a handler that interrupted another thread than the root.
        self.overdue: Overdue | None = None
        # The work of signals that have interrupted the runtime's own code, by signal.
        self.postponed: dict[int, Postponed] = {}


state = _Signals()

# Handlers that unpark no thread. If all threads are parked and no other handler is set, the carrier is deadlocked.
quiet_handlers: list[Handler] = [default_int_handler]
# Handlers of the runtime that neither park nor raise. They run on the interrupted thread, even inside runtime code.
prompt_handlers: list[Handler] = []

# Called at each Ctrl-C with Python's default handler, at once. They neither park nor raise.
at_interrupt: list[Callable[[], object]] = []

# Threads that wait until a handler of the user has run.
handled = WaitQueue()


class _HandlerOwner:
    """Owner of the virtual thread of a handler."""

    name = "signal handlers"

    def __init__(self, *, within_root: bool) -> None:
        # Whether the root was interrupted in Python code. Then the root raises the handler's exception itself.
        self.within_root = within_root
        # Whether the interrupted thread waits for the handler's first run.
        self.is_awaited = True
        self.error: BaseException | None = None

    def _settle(self, thread: VirtualThread, value: Any, error: BaseException | None) -> None:
        if self.is_awaited:
            self.error = error
        if self.is_awaited and self.within_root:
            return
        if error is not None and state.scheduler is not None:
            state.scheduler.root._interrupt_with(error, polite=False)

    def _member_ended(self, thread: VirtualThread) -> None:
        handled.unpark_all()

    def _failed_at_end(self, thread: VirtualThread, error: BaseException) -> None:
        self._settle(thread, None, error)


# --- the standard library's functions


def set_handler(signalnum: int, handler: Any, /) -> Any:
    """`signal.signal`. Not a checkpoint.

    Raises:
        ValueError: the caller is not the main thread, but another OS thread or a virtual thread other than the root.
    """
    _refuse_others("signal")
    if state.scheduler is None or not callable(handler):
        previous = get_handler(signalnum)
        original_signal(signalnum, handler)
        state.handlers.pop(signalnum, None)
        return previous
    previous = get_handler(signalnum)
    _install(signalnum, handler)
    return previous


def get_handler(signalnum: int, /) -> Any:
    """`signal.getsignal`. Not a checkpoint."""
    return state.handlers.get(signalnum) or original_getsignal(signalnum)


def set_wakeup_fd(fd: int, /, *, warn_on_full_buffer: bool = True) -> int:
    """`signal.set_wakeup_fd`. Not a checkpoint. While the runtime runs, `fd` gets the signals that have a handler.

    Raises:
        ValueError: as for `set_handler`; or `fd` is in blocking mode or not a descriptor.
    """
    _refuse_others("set_wakeup_fd")
    # The original checks the number and the OS thread of the caller.
    previous = original_set_wakeup_fd(fd, warn_on_full_buffer=warn_on_full_buffer)
    if state.scheduler is None:
        return previous
    original_set_wakeup_fd(state.scheduler.poller.interrupt_fd, warn_on_full_buffer=False)
    previous, state.users_wakeup_fd = state.users_wakeup_fd, fd
    return previous


def _refuse_others(name: str) -> None:
    """Raise the error that the original raises outside the main thread; it sees all threads of a carrier as the same.

    A library sets its handlers if it runs on the main thread, and restores the previous ones later. Two virtual threads
    that did so at the same time would each restore the handler of the other.
    """
    thread = running()
    if thread is None or thread._scheduler.when_forking is not None:
        # In the child of a fork, the thread that forked is about to be the main thread. `asyncio` unsets the wakeup fd
        # there, in a handler that may come before that of this package.
        return
    if thread._thread_ident != threading.main_thread().ident:
        raise ValueError(f"{name} only works in main thread of the main interpreter")


def _write_to_wakeup_fd(signalnum: int) -> None:
    """Write the signal number to the user's wakeup fd, as the interpreter would."""
    if state.users_wakeup_fd >= 0:
        try:
            write_fd(state.users_wakeup_fd, bytes([signalnum]))
        except OSError:
            # The pipe is full, so its reader will wake up anyway; or it was closed without being unset.
            pass


def _install(signalnum: int, handler: Handler) -> None:
    is_default = signalnum == signal.SIGINT and handler is default_int_handler
    original_signal(signalnum, _interrupt_root if is_default else _trampoline)
    state.handlers[int(signalnum)] = handler


# --- starting and stopping


def _started(scheduler: Scheduler, patch: bool) -> None:
    if not is_main_carrier(scheduler):
        return
    forked = state.scheduler is not None
    state.scheduler = scheduler
    state.presses, state.pressed = 0, None
    # A fork clears pending signals in the child: their handlers run in the parent. So does the work left for later.
    state.postponed.clear()
    state.overdue = None
    # The C part of the signal handler writes to this descriptor. So a signal that comes just before a poll ends it.
    previous = original_set_wakeup_fd(scheduler.poller.interrupt_fd, warn_on_full_buffer=False)
    if not forked:
        # In the child of a fork this is the poller of the parent. Its number may mean another file by now: ignore it.
        state.users_wakeup_fd = previous
    # Call the C module: the functions of `signal` create 64 enum members, which took two thirds of the time of `run`.
    for signalnum in _signal.valid_signals():
        handler = state.handlers.get(signalnum) or _signal.getsignal(signalnum)
        if callable(handler):
            _install(signalnum, handler)


def _stopping(scheduler: Scheduler) -> None:
    if scheduler is not state.scheduler:
        return
    try:
        original_set_wakeup_fd(state.users_wakeup_fd)
    except OSError:
        # Its owner has closed it without unsetting it, as uvloop does if the runtime has started inside its loop.
        original_set_wakeup_fd(-1)
    state.users_wakeup_fd = -1
    for signalnum, handler in state.handlers.items():
        original_signal(signalnum, handler)
    state.handlers.clear()
    state.scheduler = None


def _user_handlers(scheduler: Scheduler) -> bool:
    """Return whether a handler of the user could still unpark a thread."""
    return scheduler is state.scheduler and any(
        not any(handler is quiet for quiet in (*quiet_handlers, *prompt_handlers)) and not _is_of_runner(handler)
        for handler in state.handlers.values()
    )


def _is_of_runner(handler: Any) -> bool:
    """Return whether `asyncio.run` has set `handler`: it only cancels a task, which ends no blocking call."""
    runners = sys.modules.get("asyncio.runners")
    function = getattr(getattr(handler, "func", None), "__func__", None)
    return runners is not None and function is runners.Runner._on_sigint


participate(__name__, Participant(started=_started, stopping=_stopping, may_unpark=_user_handlers))


# --- called by the interpreter


def _trampoline(signalnum: int, frame: FrameType | None) -> None:
    overdue = state.overdue
    if overdue is not None and overdue.has_come(signalnum):
        state.overdue = None
        if overdue.still_pins() and not is_own_frame(frame):
            raise overdue.error
        return
    if _has_come_again(signalnum, frame):
        return
    _write_to_wakeup_fd(signalnum)
    handler, scheduler = state.handlers.get(signalnum), state.scheduler
    if handler is None:
        # C code has replaced the handler since the signal came. The interpreter ignores such a signal too.
        return
    is_prompt = running() is not None and any(handler is prompt for prompt in prompt_handlers)
    if is_prompt or scheduler is None or scheduler.ident not in carriers:
        handler(signalnum, frame)
    elif running() is None or is_own_frame(frame):
        _postpone(scheduler, signalnum, partial(_start_handler, scheduler, handler, signalnum, frame))
    else:
        _start_handler(scheduler, handler, signalnum, frame)


def _postpone(scheduler: Scheduler, signalnum: int, work: Callable[[], object]) -> None:
    """Do `work` at the next switch; or at once, when the carrier has been pinned for a while."""
    postponed = state.postponed.get(signalnum)
    if postponed is None:
        postponed = state.postponed[signalnum] = Postponed(scheduler, signalnum)
    postponed.add(work)


def _has_come_again(signalnum: int, frame: FrameType | None) -> bool:
    """Do what was postponed if the signal is the one that was sent again for that; return whether it is."""
    postponed = state.postponed.get(signalnum)
    if postponed is None or not postponed.has_come(signalnum):
        return False
    if running() is None or is_own_frame(frame):
        postponed.add_again()
    else:
        postponed.do()
    return True


def _start_handler(scheduler: Scheduler, handler: Handler, signalnum: int, frame: FrameType | None) -> None:
    interrupted = scheduler.running
    owner = _HandlerOwner(within_root=interrupted is scheduler.root)
    thread = VirtualThread.__new__(VirtualThread)._init_thread(
        scheduler, copy_context(), owner, (handler, (signalnum, frame), {})
    )
    thread.name = f"handler of {signal.Signals(signalnum).name}"
    # A handler runs as the main thread, as without a runtime: it has its identity, its locks and its thread-local data.
    thread._thread_ident = scheduler.ident
    if interrupted is None:
        scheduler.make_next(thread)
        return
    scheduler.start(thread)
    owner.is_awaited = False
    if owner.error is not None:
        if owner.within_root:
            raise owner.error
        state.overdue = Overdue(scheduler, signalnum, owner.error)
        state.overdue.watch()


def _interrupt_root(signalnum: int, frame: FrameType | None) -> None:
    if _has_come_again(signalnum, frame):
        return
    _write_to_wakeup_fd(signalnum)
    for notify in at_interrupt:
        notify()
    scheduler = state.scheduler
    if scheduler is None or scheduler.ident not in carriers:
        raise KeyboardInterrupt
    in_user_code = running() is not None and not is_own_frame(frame)
    _count_press()
    # Threads that wait for a call that does not return would delay the exit, so abandon these calls.
    leave_calls_behind(even_in_grace=state.presses >= 2)
    if in_user_code and state.presses >= 3:
        raise _new_press()
    if in_user_code:
        _press(scheduler, _new_press(), state.presses >= 2)
    else:
        # The thread may have found nothing pending and be about to park. Deliver between two switches instead.
        _postpone(scheduler, signalnum, partial(_press, scheduler, _new_press(), state.presses >= 2))


def _press(scheduler: Scheduler, error: KeyboardInterrupt, again: bool) -> None:
    root: VirtualThread = scheduler.root
    if not again and running() is root and not root._is_protected():
        raise error
    if again:
        _hurry(scheduler)
    root._interrupt_with(error, polite=not again)


def _count_press() -> None:
    # Two references are this attribute and the argument. If there are no others, the last press has been handled.
    if state.pressed is not None and sys.getrefcount(state.pressed) <= 2:
        state.presses = 0
        _stop_hurrying()
    state.presses += 1


def _new_press() -> KeyboardInterrupt:
    state.pressed = KeyboardInterrupt()
    return state.pressed


def _hurry(scheduler: Scheduler) -> None:
    """End the time for shields and cleanup, for all threads of the run."""
    for thread in list(threads_of_run(scheduler)):
        node = thread._innermost
        while node is not None:
            if isinstance(node, CancelScope) and node.shield:
                node._drop_shield()
            node = node._parent  # type: ignore[assignment]  # ends at None
        thread._hurry()


def _stop_hurrying() -> None:
    if state.scheduler is not None:
        for thread in list(threads_of_run(state.scheduler)):
            thread._hurried = False
