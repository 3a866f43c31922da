"""Thread identity: replacements for the `threading` functions that return the current thread or its ident.

A root thread, and a signal handler, keep the identity of their OS thread, because they run its code. Every other
virtual thread has its own ident and its own object, so that code which stores data by ident keeps the threads apart.
"""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from .._core.arguments import standard_time
from .._core.current import carriers, running
from .._core.deadlock import threads_on
from .._core.engine import TIMED_OUT
from .._core.idents import is_virtual_ident
from .._core.originals import allocate_lock
from .._core.originals import get_ident as original_get_ident
from .._core.os_thread_kinds import ending_os_threads, forking_os_threads, hidden_os_threads
from .._core.participants import Participant, participate
from .._core.wait_queue import WaitQueue, refuse_to_wait_inside_scheduler, waiter_here
from . import threads

__all__ = ["current_thread", "get_ident", "join_thread", "pthread_getcpuclockid", "pthread_kill", "unparking_joiners"]

original_current_thread = threading.current_thread
original_join = threading.Thread.join
# Not every platform has these.
original_pthread_kill: Any = getattr(signal, "pthread_kill", None)
original_pthread_getcpuclockid: Any = getattr(time, "pthread_getcpuclockid", None)

# Keys in the instance's dict of the `threading.Thread` that is joined.
JOINERS, OVER = "_vthreads_joiners", "_vthreads_over"


def get_ident() -> int:
    """`threading.get_ident`."""
    thread = running()
    if thread is None:
        return original_get_ident()
    ident = thread._thread_ident
    if thread is thread._scheduler.root or original_get_ident() in forking_os_threads:
        # A virtual thread that forks becomes the root of the child, and is the OS thread of the child. But if it was
        # started by `threading`, then `threading._active` knows it under its own ident, so that must stay.
        known: dict[int, threading.Thread] = threading._active  # type: ignore[attr-defined]  # not in the type stubs
        return ident if ident in known else original_get_ident()
    return ident


def current_thread() -> threading.Thread:
    """`threading.current_thread`."""
    thread = running()
    if hidden_os_threads:
        hidden = hidden_os_threads.get(original_get_ident())
        if hidden is not None and (thread is None or thread is thread._scheduler.root):
            return hidden
    # A thread that was started through `threading` has a `threading.Thread` object: the original returns it.
    if thread is None or thread._thread_ident == thread._scheduler.ident or thread in threads.alive:
        return original_current_thread()
    known: dict[int, threading.Thread] = threading._active  # type: ignore[attr-defined]  # not in the type stubs
    if thread is thread._scheduler.root and thread._thread_ident not in known:
        # It has forked, and is the main thread of the child process.
        return original_current_thread()
    return known.get(thread._thread_ident, thread)


def pthread_kill(thread_id: int, signalnum: int, /) -> None:
    """`signal.pthread_kill`. For a virtual thread, its carrier gets the signal. Not a checkpoint."""
    original_pthread_kill(_os_ident(thread_id), signalnum)


def pthread_getcpuclockid(thread_id: int, /) -> int:
    """`time.pthread_getcpuclockid`. For a virtual thread, the clock of its carrier. Not a checkpoint."""
    clock_id: int = original_pthread_getcpuclockid(_os_ident(thread_id))
    return clock_id


def _os_ident(ident: Any) -> Any:
    """Return the ident of the OS thread that runs the thread with this ident."""
    thread = running()
    if thread is not None and thread._thread_ident == ident:
        return thread._scheduler.ident
    if not isinstance(ident, int) or not is_virtual_ident(ident):
        return ident
    for scheduler in list(carriers.values()):
        if any(thread._thread_ident == ident for thread in threads_on(scheduler)):
            return scheduler.ident
    # The same error as for an OS thread that has ended.
    raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))


def join_thread(self: threading.Thread, timeout: float | None = None) -> None:
    """`Thread.join`: park until the last Python code of the thread has run. The original waits for an OS thread in C.

    Virtual threads take this path too: if a wait for the sentinel is interrupted, Python 3.11 marks the thread as
    stopped although it still runs.
    """
    thread = running()
    seconds = None if timeout is None else standard_time(timeout)
    if self is current_thread() or seconds is not None and not seconds > 0:
        return original_join(self, timeout)
    if thread is None:
        if self.is_alive():
            refuse_to_wait_inside_scheduler()
        return original_join(self, timeout)
    thread._check()
    if not self.is_alive():
        return original_join(self, timeout)
    joiners: WaitQueue = self.__dict__.setdefault(JOINERS, WaitQueue())
    joiner = waiter_here()
    joiners.add(joiner)
    if OVER in self.__dict__ and joiners.withdraw(joiner):
        return original_join(self, timeout)
    if joiners.park(joiner, seconds) is TIMED_OUT:
        return None
    # The last Python code has run, so the rest of the thread ends without waiting.
    original_join(self)
    # Raise a Ctrl-C that came together with the end here, and not at a later checkpoint: join has no result to lose.
    thread._check()
    return None


def unparking_joiners(original_delete: Callable[[threading.Thread], None]) -> Callable[[threading.Thread], None]:
    """Wrap `Thread._delete`, the last call of a thread in `threading`: it also unparks the threads that join it."""

    def delete_thread(self: threading.Thread) -> None:
        original_delete(self)
        _unpark_joiners(self)
        if threads.is_virtual(self):
            return
        ending_os_threads.add(original_get_ident())
        # An OS thread that could have unparked others is gone. A carrier whose threads are all parked may be
        # deadlocked now, and must check.
        for scheduler in list(carriers.values()):
            scheduler.post(_do_nothing)

    return delete_thread


def _unpark_joiners(over: threading.Thread) -> None:
    over.__dict__[OVER] = True
    joiners = over.__dict__.get(JOINERS)
    if joiners is not None:
        joiners.unpark_all()


def _do_nothing() -> None:
    """Do nothing: posting this interrupts the poll of the carrier, which then checks for a deadlock again."""


def end_main_thread() -> Callable[[], None]:
    """Mark the main thread as ended, as `threading._shutdown` does first; return the function that undoes it."""
    main: Any = threading.main_thread()
    handle = vars(main).get(threads.HANDLE)
    if handle is not None:
        handle._set_done()
        _unpark_joiners(main)
        return _nothing_to_put_back
    sentinel = main._tstate_lock
    if sentinel is None or not sentinel.locked():
        # In the child of a fork the main thread was a virtual thread, which has ended. A thread that `_thread` started
        # directly has no sentinel.
        return _nothing_to_put_back
    main._is_stopped, main._tstate_lock = True, None
    # OS threads that join the main thread wait in C for this lock.
    sentinel.release()
    _unpark_joiners(main)
    return _put_sentinel_back


def _put_sentinel_back() -> None:
    main: Any = threading.main_thread()
    main._tstate_lock = allocate_lock()
    main._tstate_lock.acquire()


def _nothing_to_put_back() -> None:
    """Do nothing: `_set_done` of a handle can be called twice."""


participate(__name__, Participant(main_over=end_main_thread))
