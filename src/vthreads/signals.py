"""Signals on the main carrier: Ctrl-C goes to the root, handlers run on a virtual thread of their own.

Python calls a handler between any two bytecodes of the main OS thread, whichever virtual thread runs there, or inside a
poll. Here a trampoline stands in its place: in the midst of the runtime's own code the handler waits for the next
switch, otherwise it runs at once, in a fresh virtual thread, so that it may block. What it raises surfaces in the root:
at once if it was the root's own Python code that was interrupted, and otherwise at a checkpoint.

Ctrl-C, with Python's default handler in place, raises `KeyboardInterrupt` in the root: the first press waits for
shields and cleanup, the second does not and cuts them short, a third is raised in whatever runs.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # not in the type stubs
import signal
import sys
from collections.abc import Callable
from contextvars import copy_context
from math import inf
from types import FrameType
from typing import Any

from ._core.cancel import CancelScope
from ._core.current import carriers, running
from ._core.deadlock import threads_below
from ._core.engine import Scheduler
from ._core.originals import write_fd
from ._core.runtime import is_main_carrier, outside_sources, start_hooks, stop_hooks
from ._core.spawn_site import is_own_frame
from ._core.thread import VirtualThread
from ._core.wait_queue import WaitQueue
from .offload import leave_calls_behind

__all__ = ["get_handler", "handled", "prompt_handlers", "quiet_handlers", "set_handler", "set_wakeup_fd"]

Handler = Callable[[int, FrameType | None], Any]

original_signal, original_getsignal = signal.signal, signal.getsignal
original_set_wakeup_fd = signal.set_wakeup_fd
default_int_handler = signal.default_int_handler


class _Signals:
    """What the main carrier has done to the process's signal handlers."""

    def __init__(self) -> None:
        self.scheduler: Scheduler | None = None
        # The user's handlers, by signal, where a trampoline stands now.
        self.handlers: dict[int, Handler] = {}
        # What the user has set to hear of signals by; the interpreter itself writes to the poller's.
        self.users_wakeup_fd = -1
        self.presses = 0
        # The `KeyboardInterrupt` of the last press. While anybody else refers to it, it is on its way.
        self.pressed: KeyboardInterrupt | None = None


state = _Signals()

# Handlers that unpark nobody: whether one of them is set, a carrier where all is parked is in a deadlock.
quiet_handlers: list[Handler] = [default_int_handler]
# Quiet ones of the runtime's own, called where the signal finds a thread, even in the midst of the runtime's code: they
# neither park nor raise.
prompt_handlers: list[Handler] = []

# Who waits until a handler of the user's has run.
handled = WaitQueue()


class _HandlerOwner:
    """What the virtual thread of a handler belongs to."""

    name = "signal handlers"

    def __init__(self, *, within_root: bool) -> None:
        # Whether the root, interrupted in Python code, waits for the handler's first run; it raises the failure itself.
        self.within_root = within_root
        self.error: BaseException | None = None

    def settle(self, thread: VirtualThread, value: Any, error: BaseException | None) -> None:
        if self.within_root:
            self.error = error
        elif error is not None and state.scheduler is not None:
            state.scheduler.root.interrupt_with(error, polite=False)

    def left(self, thread: VirtualThread) -> None:
        handled.unpark_all()


# --- the standard library's functions


def set_handler(signalnum: int, handler: Any, /) -> Any:
    """`signal.signal`. Not a checkpoint."""
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
    """`signal.set_wakeup_fd`. Not a checkpoint. While the runtime runs, `fd` hears of signals that have a handler."""
    # The original judges the number, and the thread that asks.
    previous = original_set_wakeup_fd(fd, warn_on_full_buffer=warn_on_full_buffer)
    if state.scheduler is None:
        return previous
    original_set_wakeup_fd(state.scheduler.poller.interrupt_fd, warn_on_full_buffer=False)
    previous, state.users_wakeup_fd = state.users_wakeup_fd, fd
    return previous


def _tell_user(signalnum: int) -> None:
    """Write to the user's descriptor what the interpreter would have written."""
    if state.users_wakeup_fd >= 0:
        try:
            write_fd(state.users_wakeup_fd, bytes([signalnum]))
        except OSError:
            # Full, so that whoever looks at it will look anyway; or closed without having been taken back.
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
    # Written to by the C part of the handler: a signal that comes just before a poll must end it.
    previous = original_set_wakeup_fd(scheduler.poller.interrupt_fd, warn_on_full_buffer=False)
    if not forked:
        # In the child of a fork it is the poller's of the parent, whose number may mean another file by now.
        state.users_wakeup_fd = previous
    # Of the module in C: those of `signal` make enums of 64 numbers, two thirds of what `run` takes.
    for signalnum in _signal.valid_signals():
        handler = state.handlers.get(signalnum) or _signal.getsignal(signalnum)
        if callable(handler):
            _install(signalnum, handler)


def _stopping(scheduler: Scheduler) -> None:
    if scheduler is not state.scheduler:
        return
    original_set_wakeup_fd(state.users_wakeup_fd)
    state.users_wakeup_fd = -1
    for signalnum, handler in state.handlers.items():
        original_signal(signalnum, handler)
    state.handlers.clear()
    state.scheduler = None


def _user_handlers(scheduler: Scheduler) -> bool:
    """Whether a handler of the user's could still unpark somebody."""
    return scheduler is state.scheduler and any(
        not any(handler is quiet for quiet in (*quiet_handlers, *prompt_handlers))
        for handler in state.handlers.values()
    )


start_hooks.append(_started)
stop_hooks.append(_stopping)
outside_sources.append(_user_handlers)


# --- what the interpreter calls


def _trampoline(signalnum: int, frame: FrameType | None) -> None:
    _tell_user(signalnum)
    handler, scheduler = state.handlers.get(signalnum), state.scheduler
    if handler is None:
        # Another one, in C, has taken its place since the signal came; the interpreter ignores such a signal as well.
        return
    is_prompt = running() is not None and any(handler is prompt for prompt in prompt_handlers)
    if is_prompt or scheduler is None or scheduler.ident not in carriers:
        handler(signalnum, frame)
    elif running() is None or is_own_frame(frame):
        _soon(scheduler, _start_handler, scheduler, handler, signalnum, frame)
    else:
        _start_handler(scheduler, handler, signalnum, frame)


def _soon(scheduler: Scheduler, function: Callable[..., Any], *args: Any) -> None:
    """Call it between two switches, the first of which is at the next checkpoint."""
    scheduler.post(function, *args)
    scheduler.slice_end = -inf


def _start_handler(scheduler: Scheduler, handler: Handler, signalnum: int, frame: FrameType | None) -> None:
    interrupted = scheduler.running
    owner = _HandlerOwner(within_root=interrupted is scheduler.root)
    thread = VirtualThread(scheduler, copy_context(), owner, (handler, (signalnum, frame), {}))
    thread.name = f"handler of {signal.Signals(signalnum).name}"
    # The code of the main thread, as in a handler it always is: it has its identity, its locks and its data.
    thread.thread_ident = scheduler.ident
    if interrupted is None:
        scheduler.make_next(thread)
        return
    scheduler.start(thread)
    owner.within_root = False
    if owner.error is not None:
        raise owner.error


def _interrupt_root(signalnum: int, frame: FrameType | None) -> None:
    _tell_user(signalnum)
    scheduler = state.scheduler
    if scheduler is None or scheduler.ident not in carriers:
        raise KeyboardInterrupt
    root: VirtualThread = scheduler.root
    in_user_code = running() is not None and not is_own_frame(frame)
    _count_press()
    # Whoever waits for a call that does not return holds up the end, whichever thread it is.
    leave_calls_behind(even_in_grace=state.presses >= 2)
    if in_user_code and (state.presses >= 3 or state.presses == 1 and running() is root and not root.is_protected()):
        raise _new_press()
    if in_user_code:
        _press(scheduler, _new_press(), state.presses >= 2)
    else:
        # A thread may be about to park, having just found that nothing is pending: told between two switches.
        _soon(scheduler, _press, scheduler, _new_press(), state.presses >= 2)


def _press(scheduler: Scheduler, error: KeyboardInterrupt, again: bool) -> None:
    if again:
        _hurry(scheduler)
    scheduler.root.interrupt_with(error, polite=not again)


def _count_press() -> None:
    # Two references are this module's attribute and the argument: nobody else holds it, so it has been dealt with.
    if state.pressed is not None and sys.getrefcount(state.pressed) <= 2:
        state.presses = 0
        _stop_hurrying()
    state.presses += 1


def _new_press() -> KeyboardInterrupt:
    state.pressed = KeyboardInterrupt()
    return state.pressed


def _hurry(scheduler: Scheduler) -> None:
    """The time for shields and cleanup is over, everywhere on the main carrier."""
    for thread in list(threads_below(scheduler)):
        node = thread.innermost
        while node is not None:
            if isinstance(node, CancelScope) and node.shield:
                node.drop_shield()
            node = node._parent  # type: ignore[assignment]  # ends at None
        thread.hurry()


def _stop_hurrying() -> None:
    if state.scheduler is not None:
        for thread in list(threads_below(state.scheduler)):
            thread.hurried = False
