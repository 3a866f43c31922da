"""Calls outside of their carrier, on an OS thread or an event loop, and the cancelled threads that wait for their end.

Such a call cannot be interrupted like a park, so a thread may have to wait for it although it is cancelled. If the call
outlasts the cleanup grace, a report on stderr says what the cancellation waits for.
"""

from __future__ import annotations

import sys
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from .._core.cancel import CancelNode, CancelScope
from .._core.delivery import deferred_delivery
from .._core.engine import Scheduler, Section
from .._core.exceptions import without_cancelled
from .._core.participants import Participant, participate
from .._core.thread import VirtualThread
from .._core.wait_queue import WaitQueue, waiter_here

__all__ = ["OutsideCall", "leave_calls_behind", "wait_held_up"]


class OutsideCall(ABC):
    """A call outside of its carrier, with the threads that wait for its end. Thread-safe.

    A subclass ends it under the section `_changing`, then calls `_waiting.unpark_all`.
    """

    def __init__(self) -> None:
        self._waiting = WaitQueue()

    @property
    @abstractmethod
    def description(self) -> str:
        """Name the call, for messages about threads that wait for it."""

    @property
    @abstractmethod
    def is_over(self) -> bool:
        """Whether the call has ended, or will never begin."""

    @property
    @abstractmethod
    def _changing(self) -> Section:
        """Return the section that guards the state of the call."""

    def park(self, thread: VirtualThread, park: Callable[[Callable[[], bool]], Any]) -> Any:
        """Park `thread` by its method `park` until the call is over or `unpark_early` is called."""
        with self._changing:
            if self.is_over:
                return True
            waiter = waiter_here()
            self._waiting.add(waiter)
        if waiter is not thread:
            park = waiter._park
        return park(lambda: self._waiting.withdraw(waiter))

    def unpark_early(self, thread: VirtualThread) -> None:
        """Unpark `thread` with the value False, if it still waits for the outcome."""
        if self._waiting.withdraw(thread):
            thread._unpark(False)


class _HeldUp:
    """A cancelled thread that waits for its call. As a timer owner, it expires when the cleanup grace is over."""

    def __init__(self, thread: VirtualThread, call: OutsideCall) -> None:
        self.thread = thread
        self.call = call
        self.overdue = False
        self.leaves = False

    def _expire(self) -> None:
        self.overdue = True
        self.call.unpark_early(self.thread)

    def leave(self) -> None:
        if self in _held_up:
            self.leaves = True
            self.call.unpark_early(self.thread)


_held_up: dict[_HeldUp, None] = {}
# The waits do not exist in the child of a fork.
participate(__name__, Participant(forked=_held_up.clear))


def leave_calls_behind(*, even_in_grace: bool = False, scheduler: Scheduler | None = None) -> None:
    """Make cancelled threads that still wait for their call abandon it. Not a checkpoint; thread- and signal-safe.

    For Ctrl-C: the thread that delays the exit may be another one than the thread that gets `KeyboardInterrupt`.

    Args:
        even_in_grace: include threads whose cleanup grace has not expired.
        scheduler: only threads of this carrier.
    """
    for wait in list(_held_up):
        if (wait.overdue or even_in_grace) and scheduler in (None, wait.thread._scheduler):
            wait.thread._scheduler.post(wait.leave)


def wait_held_up(thread: VirtualThread, call: OutsideCall, overdue_at: float) -> None:
    """Wait until `call` is over. Only an interrupt or `leave_calls_behind` ends the wait earlier.

    At `overdue_at` on the clock of the thread, one report on stderr names the call and what it delays.
    """
    wait = _HeldUp(thread, call)
    reported = False
    timers = thread._scheduler.timers
    timer = timers.add(max(overdue_at, thread._scheduler.clock.now()), wait)
    _held_up[wait] = None
    try:
        while not call.park(thread, thread._park_for_interrupts):
            if wait.overdue and not reported:
                reported = True
                _report(thread, call)
            if wait.leaves:
                # Raises `Cancelled`, unless code has shielded the thread meanwhile.
                wait.leaves = False
                thread._check()
    finally:
        timers.cancel(timer)
        del _held_up[wait]


# --- reporting a call that delays a cancellation


def _report(thread: VirtualThread, call: OutsideCall) -> None:
    node = thread._innermost._affected_by
    reason = None if node is None else node._cancel_reason
    lines = [f"vthreads: {thread.name!r} is cancelled ({reason or 'no reason was given'}), but "]
    lines += [f"still waits for {call.description}; Ctrl-C abandons it.\n"]
    try:
        # Formatting reads source files and runs code of the user; both could raise the pending cancellation.
        with deferred_delivery():
            for failure in _failures_held_up(thread):
                lines += ["This waits behind it:\n", *traceback.format_exception(failure)]
            sys.stderr.write("".join(lines))
            sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        # stderr is closed or broken, so the report cannot be written anywhere.
        pass


def _failures_held_up(thread: VirtualThread) -> list[BaseException]:
    """Collect the exceptions that `thread` delays: the one it handles, and the failures of the groups around it."""
    failures: dict[int, BaseException] = {}
    handled = sys.exc_info()[1]
    if handled is not None and without_cancelled(handled) is not None:
        failures[id(handled)] = handled
    node: CancelNode | None = thread._innermost
    while node is not None:
        if isinstance(node, CancelScope) and node._group is not None:
            failures.update((id(failure), failure) for failure in list(node._group._failures.values()))
        node = node._parent
    return list(failures.values())
