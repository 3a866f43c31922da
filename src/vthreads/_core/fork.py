"""Fork: the child keeps the virtual thread that forked, as the root of a fresh runtime, and nothing else."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from typing import Any

from .cancel import CancelNode, CancelScope
from .deadlock import threads_below
from .engine import Scheduler, carriers, cease_carrier
from .future import CANCELLED, changing_futures
from .order import FifoOrder
from .originals import get_ident
from .runtime import (
    Carrier,
    after_fork_hooks,
    exit_process,
    forking_os_threads,
    join_at_exit,
    own_os_threads,
    start_hooks,
)
from .thread import VirtualThread

__all__ = ["begin_anew", "watch_forks"]


class _ForkedRoot:
    """Owner of a virtual thread that forked: in the child its end is the end of the process."""

    name = "forked"

    def settle(self, thread: VirtualThread, value: Any, error: BaseException | None) -> None:
        # From here on a root like any other, whose end is only told to itself.
        thread.group = None
        status = 0
        if isinstance(error, SystemExit):
            status = error.code if isinstance(error.code, int) else int(error.code is not None)
            if status and not isinstance(error.code, int):
                sys.stderr.write(f"{error.code}\n")
        elif error is not None:
            sys.excepthook(type(error), error, error.__traceback__)
            status = 1
        threading._shutdown()  # type: ignore[attr-defined]  # not in the type stubs
        exit_process(status)

    def left(self, thread: VirtualThread) -> None:
        """Never reached: `settle` ends the process."""


def _before_fork() -> None:
    forking_os_threads.add(get_ident())


def _after_fork_in_parent() -> None:
    forking_os_threads.discard(get_ident())


def _after_fork() -> None:
    """The child keeps the forking virtual thread, if it was one, as the root of a fresh runtime, and nothing else."""
    old = carriers.get(get_ident())
    everyone = list(carriers.values())
    carriers.clear()
    cease_carrier()
    own_os_threads.clear()
    forking_os_threads.clear()
    # Another OS thread may have been inside, and would be for ever.
    changing_futures._at_fork_reinit()  # type: ignore[attr-defined]  # not in the type stubs
    for hook in after_fork_hooks:
        hook()
    survivor: VirtualThread | None = None if old is None else old.running
    for scheduler in everyone:
        for thread in threads_below(scheduler):
            if thread is not survivor and thread.future is not None and not thread.future.done():
                thread.future._set(CANCELLED, None, None)
        scheduler.poller.close()
        # Their greenlets must never be collected: that would run their `finally` blocks here.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(scheduler))
        for thread in threads_below(scheduler):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(thread))
    if old is not None and survivor is not None:
        _adopt_survivor(survivor, old)


def _adopt_survivor(survivor: VirtualThread, old: Scheduler) -> None:
    was_root = old.root is survivor
    carrier = Carrier(old.poller.name, old.clock, FifoOrder(), root=survivor)
    survivor.scheduler = carrier.scheduler
    if not was_root:
        survivor._parent = None
        survivor._affected_by = survivor._find_affecting()
        survivor.group = _ForkedRoot()
    for scope in _scopes_of(survivor):
        scope.survive_fork()
    survivor.refresh()
    carrier.start(patch=False)
    if threading.current_thread() is threading.main_thread():
        join_at_exit(carrier)


def begin_anew(thread: VirtualThread) -> None:
    """In the child, before code that never returns to what was around the fork: nothing of that cancels it."""
    thread.end_deferral()
    for scope in reversed(_scopes_of(thread)):
        scope.leave_quietly(thread)
    thread.cancel_called = False
    thread._affected_by = None
    thread.refresh()


def _scopes_of(thread: VirtualThread) -> list[CancelScope]:
    """The scopes that `thread` has entered, outermost first."""
    scopes = []
    node: CancelNode | None = thread.innermost
    while node is not None and node is not thread:
        if isinstance(node, CancelScope):
            scopes.append(node)
        node = node._parent
    return scopes[::-1]


class _Registration:
    """Whether the interpreter knows of this module; it is told when the first carrier starts, and not at import."""

    done = False


def watch_forks() -> None:
    """Let the child of a fork be set right, by the hooks of the layers above as well; the first carrier asks for it."""
    if not _Registration.done:
        _Registration.done = True
        os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork)


start_hooks.insert(0, lambda scheduler, patch: watch_forks())
