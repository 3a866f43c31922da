"""Who am I: the `threading` questions, answered per virtual thread.

A root thread is still the OS thread that it was, and so is what handles a signal; any other virtual thread has a number
and an object of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from .._core.current import carriers, running
from .._core.engine import TIMED_OUT
from .._core.originals import allocate_lock
from .._core.originals import get_ident as original_get_ident
from .._core.runtime import ending_os_threads, forking_os_threads, main_over_hooks
from .._core.wait_queue import WaitQueue
from . import threads

__all__ = ["current_thread", "delete_thread", "get_ident", "join_thread"]

original_current_thread = threading.current_thread
original_join = threading.Thread.join
original_delete = threading.Thread._delete  # type: ignore[attr-defined]  # not in the type stubs

# Attributes on the `threading.Thread` that is joined.
JOINERS, OVER = "_vthreads_joiners", "_vthreads_over"


def get_ident() -> int:
    """`threading.get_ident`."""
    thread = running()
    if thread is None:
        return original_get_ident()
    ident = thread.thread_ident
    if thread is thread.scheduler.root or original_get_ident() in forking_os_threads:
        # One that forks is the root of the child, and that is still the OS thread that it was; but one that
        # `threading` has started is known there by its own number.
        known: dict[int, threading.Thread] = threading._active  # type: ignore[attr-defined]  # not in the type stubs
        return ident if ident in known else original_get_ident()
    return ident


def current_thread() -> threading.Thread:
    """`threading.current_thread`."""
    thread = running()
    # One that was started as a thread of the standard library is known there by its own object.
    if thread is None or thread.thread_ident == thread.scheduler.ident or thread in threads.alive:
        return original_current_thread()
    known: dict[int, threading.Thread] = threading._active  # type: ignore[attr-defined]  # not in the type stubs
    if thread is thread.scheduler.root and thread.thread_ident not in known:
        # It has forked, and is the main thread of the child.
        return original_current_thread()
    return known.get(thread.thread_ident, thread)


def join_thread(self: threading.Thread, timeout: float | None = None) -> None:
    """`Thread.join`, which waits in C for an OS thread: park until the last Python code of the thread has run.

    Of a virtual one, too: what 3.11 does when its wait for the sentinel is interrupted takes the thread for stopped.
    """
    thread = running()
    if thread is None or self is current_thread() or timeout is not None and timeout <= 0:
        return original_join(self, timeout)
    thread.check()
    if not self.is_alive():
        return original_join(self, timeout)
    joiners: WaitQueue = self.__dict__.setdefault(JOINERS, WaitQueue())
    joiners.add(thread)
    if OVER in self.__dict__ and joiners.withdraw(thread):
        return original_join(self, timeout)
    if joiners.park(thread, timeout) is TIMED_OUT:
        return None
    # What is left of it ends without waiting for anybody.
    original_join(self)
    # A Ctrl-C that came together with the end is raised here, and not somewhere later: a join has no result to lose.
    thread.check()
    return None


def delete_thread(self: threading.Thread) -> None:
    """`Thread._delete`, the last thing that a thread does in `threading`: tell who joins it."""
    original_delete(self)
    _tell_joiners(self)
    if threads.is_virtual(self):
        return
    ending_os_threads.add(original_get_ident())
    # One OS thread less that could unpark somebody: a carrier where all is parked may now be in a deadlock.
    for scheduler in list(carriers.values()):
        scheduler.post(_look_again)


def _tell_joiners(over: threading.Thread) -> None:
    over.__dict__[OVER] = True
    joiners = over.__dict__.get(JOINERS)
    if joiners is not None:
        joiners.unpark_all()


def _look_again() -> None:
    """Being woken is all."""


def end_main_thread() -> Callable[[], None]:
    """Be over to `threading`, as its `_shutdown` makes the main thread before it joins; what lets that do so again."""
    main: Any = threading.main_thread()
    handle = vars(main).get(threads.HANDLE)
    if handle is not None:
        handle._set_done()
        _tell_joiners(main)
        return _nothing_to_put_back
    sentinel = main._tstate_lock
    if sentinel is None or not sentinel.locked():
        # In the child of a fork it was a virtual thread, which has ended; one of `_thread` itself had no sentinel.
        return _nothing_to_put_back
    main._is_stopped, main._tstate_lock = True, None
    # OS threads wait for it in C.
    sentinel.release()
    _tell_joiners(main)
    return _put_sentinel_back


def _put_sentinel_back() -> None:
    main: Any = threading.main_thread()
    main._tstate_lock = allocate_lock()
    main._tstate_lock.acquire()


def _nothing_to_put_back() -> None:
    """A handle can be told twice."""


main_over_hooks.append(end_main_thread)
