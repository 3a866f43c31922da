"""Fork: the child keeps only the virtual thread that forked, as the root of a new runtime."""

from __future__ import annotations

import os
import sys
import threading
from collections import Counter
from math import inf
from typing import Any

from .cancel import CancelNode, CancelScope
from .carrier import Carrier, without_run
from .carrier_end import exit_process, join_at_exit, never_collect
from .deadlock import threads_below
from .engine import Scheduler, State, become_carrier, carriers, cease_carrier
from .engine.states import SLICE
from .exceptions import show
from .future import CANCELLED, changing_futures
from .idents import opening_region
from .order import FifoOrder
from .originals import get_ident
from .os_thread_kinds import forking_os_threads, own_os_threads
from .participants import Participant, participants, participate
from .thread import VirtualThread, making_joiners
from .unfinished_imports import forget_imports_of_others
from .wait_queue import forget_waiters_of_other_os_threads, making_queues, stand_ins

__all__ = ["begin_anew", "surviving_ident", "watch_forks"]


class _ForkedRoot:
    """Owner of a virtual thread that forked: in the child, the end of the thread ends the process."""

    name = "forked"

    def _settle(self, thread: VirtualThread, value: Any, error: BaseException | None) -> None:
        # Like a root from now on, without an owner that would be notified of the end.
        thread.group = None
        status = 0
        if isinstance(error, SystemExit):
            status = error.code if isinstance(error.code, int) else int(error.code is not None)
            if status and not isinstance(error.code, int):
                sys.stderr.write(f"{error.code}\n")
        elif error is not None:
            show(error)
            status = 1
        threading._shutdown()  # type: ignore[attr-defined]  # not in the type stubs
        exit_process(status)

    def _member_ended(self, thread: VirtualThread) -> None:
        """Never called: `_settle` ends the process."""


class _Survivor:
    """The thread that called `fork`, virtual or not, in the child."""

    ident = 0


# Why a group of the parent accepts no threads in the child.
OF_PARENT = "it belongs to the parent process"


def surviving_ident() -> int:
    """Return the ident of the thread that called the last `fork`, for functions that are called in the child."""
    return _Survivor.ident


class _Process:
    """The process that was the last to fork, or to be forked."""

    pid = 0


# The number of forks under way, by ident of the OS thread: a handler that waits may let another thread fork.
_under_way: Counter[int] = Counter()


def _before_fork() -> None:
    ident = get_ident()
    forking_os_threads.add(ident)
    _under_way[ident] += 1
    _Process.pid = os.getpid()
    scheduler = carriers.get(ident)
    if scheduler is not None:
        # Handlers of other modules may run in the child before `_after_fork`, and a checkpoint there would run the
        # other virtual threads of the parent in the child. So the first switch in the child calls `_after_fork`, and
        # each checkpoint counts as a switch: a call that waits must not use the poller, which the parent has too.
        scheduler.when_forking = _renew_in_child
        scheduler.slice_end = -inf


def _renew_in_child() -> bool:
    """Called before a switch: return whether this is the child, which has another runtime now."""
    if os.getpid() == _Process.pid:
        return False
    _after_fork()
    return True


def _after_fork_in_parent() -> None:
    ident = get_ident()
    _under_way[ident] -= 1
    if _under_way[ident]:
        return
    del _under_way[ident]
    forking_os_threads.discard(ident)
    scheduler = carriers.get(ident)
    if scheduler is not None:
        scheduler.when_forking = None
        # End the time at which each checkpoint counts as a switch: otherwise the first wait after it would switch.
        scheduler.slice_end = scheduler.clock.now() + SLICE


def _after_fork() -> None:
    """Keep only the forking virtual thread, if it was one, as the root of a new runtime in the child."""
    if _Process.pid == os.getpid():
        # A switch in a handler that was registered earlier has done it.
        return
    _Process.pid = os.getpid()
    old = carriers.get(get_ident())
    _Survivor.ident = old.running._thread_ident if old is not None and old.running is not None else get_ident()
    everyone = list(carriers.values())
    carriers.clear()
    cease_carrier()
    had_run = without_run.pop(get_ident(), None) is None
    without_run.clear()
    own_os_threads.clear()
    forking_os_threads.clear()
    _under_way.clear()
    # First, because a participant may import a module.
    forget_imports_of_others(_Survivor.ident)
    # Another OS thread may have held these locks, and does not exist in the child to release them.
    for lock in changing_futures, opening_region, making_joiners, making_queues:
        lock._at_fork_reinit()  # type: ignore[union-attr]  # not in the type stubs
    for participant in participants():
        if participant.forked is not None:
            participant.forked()
    survivor: VirtualThread | None = None if old is None else old.running
    for scheduler in everyone:
        _abandon(scheduler, survivor)
    for stand_in in stand_ins:
        stand_in.state = State.ENDED
    forget_waiters_of_other_os_threads()
    if old is not None and survivor is not None:
        _adopt_survivor(survivor, old, had_run)


def _abandon(scheduler: Scheduler, survivor: VirtualThread | None) -> None:
    """End the threads of `scheduler` except `survivor`, without running them.

    Some are in queues that the child uses: of locks, queues, events. A lock that the survivor releases must not be
    handed to them. A thread that has ended refuses to be unparked, so the next waiter gets what it waits for. The ident
    is changed so that this is decided at once: a message would wait for a carrier that does not exist.
    """
    scheduler.ident = get_ident()
    # The other carriers of the run do not exist here.
    scheduler.placement = scheduler.when_idle = None
    # The program may keep one of these groups. A thread that it starts would run on the abandoned scheduler.
    for group in scheduler.background, scheduler.threads, scheduler.daemons:
        if group is not None:
            group._closed = OF_PARENT
    for thread in list(threads_below(scheduler)):
        never_collect(thread)
        if thread is not survivor:
            for scope in _scopes_of(thread):
                if scope._group is not None:
                    scope._group._closed = OF_PARENT
            if thread._future is not None and not thread._future.done():
                thread._future._set(CANCELLED, None, None)
            thread.state = State.ENDED
    scheduler.poller.close()
    never_collect(scheduler)


def _adopt_survivor(survivor: VirtualThread, old: Scheduler, had_run: bool) -> None:
    was_root = old.root is survivor
    carrier = Carrier(old.poller.name, old.clock, FifoOrder(), root=survivor)
    survivor._scheduler = carrier.scheduler
    if not was_root:
        survivor._parent = None
        survivor._affected_by = survivor._find_affecting()
        survivor.group = _ForkedRoot()
    for scope in _scopes_of(survivor):
        scope._survive_fork()
    survivor._refresh()
    carrier.start(patch=False)
    if threading.current_thread() is threading.main_thread():
        carrier.undo_end = join_at_exit(carrier)
    if was_root and not had_run:
        without_run[carrier.scheduler.ident] = carrier


def begin_anew(thread: VirtualThread) -> None:
    """Detach the thread from the scopes around the fork, for code in the child that never returns to them."""
    thread._end_deferral()
    for scope in reversed(_scopes_of(thread)):
        scope._leave_quietly(thread)
    thread._cancel_called = False
    thread._affected_by = None
    thread._refresh()


def _scopes_of(thread: VirtualThread) -> list[CancelScope]:
    """Return the scopes that `thread` has entered, outermost first."""
    scopes = []
    node: CancelNode | None = thread._innermost
    while node is not None and node is not thread:
        if isinstance(node, CancelScope):
            scopes.append(node)
        node = node._parent
    return scopes[::-1]


class _Registration:
    """Whether the fork handlers are registered: with the first carrier, and not at import."""

    done = False


def watch_forks() -> None:
    """Register the fork handlers, which repair the child and call the participants; called by the first carrier."""
    if not _Registration.done:
        _Registration.done = True
        os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork)


def _started(scheduler: Scheduler, patch: bool) -> None:
    watch_forks()
    if _Process.pid not in (0, os.getpid()):
        # Code of an OS thread that was no carrier starts the runtime in the child, in a fork handler that was
        # registered earlier. `_after_fork` must not take this carrier for one of the parent.
        lazily = without_run.get(scheduler.ident)
        cease_carrier()
        _after_fork()
        become_carrier(scheduler)
        if lazily is not None:
            without_run[scheduler.ident] = lazily


participate(__name__, Participant(started=_started))
