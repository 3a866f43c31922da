"""`threading.Thread` on virtual threads: what `patch(threads=True)` puts in the place of `_thread`'s leaves.

`threading` stays the standard library's own code; what it calls to start an OS thread starts a virtual one, on the
carrier that asks. An OS thread that is no carrier still starts OS threads, except the main one, which becomes a carrier
by it. As in CPython, a thread begins with an empty context, daemons (and threads that were started by
`_thread.start_new_thread` itself) are not waited for, and the others are joined at exit after the pools were told.

Python 3.11 and 3.12 know that a thread is over by a lock, the sentinel; 3.13 and later by a handle.
"""

from __future__ import annotations

import _thread
import sys
import threading
from collections.abc import Callable
from contextvars import Context
from typing import Any

from .._core.current import on_carrier, running, started_here
from .._core.engine import State
from .._core.originals import get_ident
from .._core.runtime import after_fork_hooks, own_os_threads
from .._core.thread import VirtualThread
from ..errors import Cancelled
from ..standard_locks import StandardLock
from .tracing import trace_alone

__all__ = ["ThreadHandle", "count", "is_virtual", "set_sentinel", "start_joinable_thread", "start_new_thread"]

original_count = _thread._count
original_start_new_thread = _thread.start_new_thread
original_set_sentinel: Any = getattr(_thread, "_set_sentinel", None)
original_start_joinable_thread: Any = getattr(_thread, "start_joinable_thread", None)
OriginalHandle: Any = getattr(_thread, "_ThreadHandle", None)

# Where a Thread keeps it.
HANDLE = "_os_thread_handle" if sys.version_info >= (3, 14) else "_handle"

# Modules whose helper threads stay OS threads. Those of the first two are joined by functions of `atexit`, when the
# carrier has ended; that of the last blocks all signals, and would do so for its whole carrier and all children.
WITH_OS_THREADS = frozenset({"multiprocessing.pool", "multiprocessing.queues", "multiprocessing.resource_sharer"})

# Those started here that have not ended, each with its sentinel once there is one.
alive: dict[VirtualThread, StandardLock | None] = {}


def start_new_thread(function: Callable[..., Any], args: tuple[Any, ...], /, *kwargs: dict[str, Any]) -> int:
    """`_thread.start_new_thread`. Not a checkpoint."""
    is_call = callable(function) and isinstance(args, tuple) and all(isinstance(given, dict) for given in kwargs)
    # What is no call is refused by the original.
    if not is_call or len(kwargs) > 1 or not _spawns_here(function):
        return original_start_new_thread(function, args, *kwargs)
    sys.audit("_thread.start_new_thread", function, args, *kwargs)
    owner = _owner_of(function)
    return _start(function, args, *kwargs, daemon=owner is None or owner.daemon).thread_ident


def start_joinable_thread(function: Callable[[], Any], handle: Any = None, daemon: bool = True) -> Any:
    """`_thread.start_joinable_thread`, of Python 3.13 and later. Not a checkpoint."""
    owner = _owner_of(function)
    if type(handle) is OriginalHandle and owner is not None and vars(owner).get(HANDLE) is handle:
        # Made before the patch.
        handle = ThreadHandle()
        setattr(owner, HANDLE, handle)
    if handle is None:
        handle = ThreadHandle()
    if not callable(function) or not isinstance(handle, ThreadHandle):
        return original_start_joinable_thread(function, handle, daemon)
    return handle.start(function, daemon)


def set_sentinel() -> Any:
    """`_thread._set_sentinel`: a lock that the caller acquires, and that is released when the caller has ended."""
    thread = running()
    if thread not in alive:
        return original_set_sentinel()
    sentinel = alive[thread] = StandardLock()
    return sentinel


def count() -> int:
    """`_thread._count`; the runtime's own threads are nobody's concern."""
    return original_count() - len(own_os_threads) + len(alive)


class ThreadHandle:
    """`_thread._ThreadHandle`: how `threading.Thread` waits for the end of what it started."""

    def __init__(self) -> None:
        self._os_handle = OriginalHandle()
        self._thread: VirtualThread | None = None
        self._is_set_done = False

    def __repr__(self) -> str:
        return f"<_ThreadHandle object: ident={self.ident}>"

    def start(self, function: Callable[[], Any], daemon: bool) -> ThreadHandle:
        """Start the thread that this is the handle of."""
        if self._thread is not None:
            raise RuntimeError("thread already started")
        if not _spawns_here(function):
            original_start_joinable_thread(function, self._os_handle, daemon)
            return self
        sys.audit("_thread.start_joinable_thread", function, daemon, self)
        # The thread runs at once, and asks its own handle who it is.
        _start(function, daemon=daemon, when_made=self._is_of)
        return self

    def _is_of(self, thread: VirtualThread) -> None:
        self._thread = thread

    @property
    def is_virtual(self) -> bool:
        """Whether the thread was started, and as a virtual one."""
        return self._thread is not None

    @property
    def ident(self) -> int:
        """The thread's number; 0 before it started."""
        ident: int = self._os_handle.ident if self._thread is None else self._thread.thread_ident
        return ident

    def is_done(self) -> bool:
        """Whether the thread has ended."""
        if self._thread is None:
            done: bool = self._os_handle.is_done()
            return done
        return self._is_set_done or not self._thread.is_alive()

    def join(self, timeout: float | None = None, /) -> None:
        """Wait up to `timeout` seconds until the thread has ended. A checkpoint; thread-safe."""
        if self._thread is None:
            self._os_handle.join(timeout)
        elif self._thread is running():
            raise RuntimeError("Cannot join current thread")
        elif not self._is_set_done:
            self._thread.join(None if timeout is None or timeout < 0 else timeout)

    def _set_done(self) -> None:
        if self._thread is None:
            self._os_handle._set_done()
        self._is_set_done = True


def is_virtual(thread: threading.Thread) -> bool:
    """Whether `thread` was started as a virtual thread."""
    handle = vars(thread).get(HANDLE)
    if handle is not None:
        return isinstance(handle, ThreadHandle) and handle.is_virtual
    return isinstance(vars(thread).get("_tstate_lock"), StandardLock)


def _owner_of(function: Any) -> threading.Thread | None:
    """The `Thread` that is being started, if it is one that starts."""
    owner = getattr(function, "__self__", None)
    return owner if isinstance(owner, threading.Thread) else None


def _stays_an_os_thread(owner: threading.Thread | None) -> bool:
    target = getattr(owner, "_target", None)
    return type(owner) is threading.Thread and getattr(target, "__module__", None) in WITH_OS_THREADS


def _spawns_here(function: Callable[..., Any]) -> bool:
    """Whether a thread that is started here is to be a virtual one; the main thread becomes a carrier by asking."""
    if _stays_an_os_thread(_owner_of(function)):
        return False
    if running() is not None:
        return True
    if on_carrier() or sys.is_finalizing() or get_ident() != threading.main_thread().ident:
        return False
    return started_here() is not None


def _start(
    function: Callable[..., Any],
    args: tuple[Any, ...] = (),
    kwargs: dict[str, Any] | None = None,
    *,
    daemon: bool,
    when_made: Callable[[VirtualThread], None] | None = None,
) -> VirtualThread:
    scheduler = started_here().scheduler
    group = scheduler.daemons if daemon else scheduler.threads
    thread: VirtualThread = group.make_thread(_live, (function, args, kwargs or {}), Context())
    owner = _owner_of(function)
    if owner is not None:
        thread.name = owner.name
        invoke = owner._invoke_excepthook  # type: ignore[attr-defined]  # not in the type stubs
        owner._invoke_excepthook = _silent_when_cancelled(invoke)  # type: ignore[attr-defined]  # likewise
    alive[thread] = None
    if when_made is not None:
        when_made(thread)
    group.launch(thread)
    return thread


def _live(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """What the virtual thread runs."""
    thread = running()
    assert thread is not None
    end_tracing = trace_alone(thread)
    try:
        function(*args, **kwargs)
    finally:
        sentinel = alive.pop(thread, None)
        if sentinel is not None and sentinel.locked():
            sentinel.release()
        _forget_dummy(thread.thread_ident)
        end_tracing()


def _forget_dummy(ident: int) -> None:
    """Drop the object that `threading` has made for a thread that it did not start.

    From 3.13 on it does so by itself; before, it waits for another thread of the same number, and here is never one.
    """
    known: dict[int, threading.Thread] = threading._active  # type: ignore[attr-defined]  # not in the type stubs
    thread = known.get(ident)
    # In the child of a fork it may be the main thread, which stays known to the end.
    if isinstance(thread, threading._DummyThread) and thread is not threading.main_thread():
        known.pop(ident, None)


def _silent_when_cancelled(invoke: Callable[[threading.Thread], None]) -> Callable[[threading.Thread], None]:
    """A thread that the runtime has cancelled did not fail."""

    def invoke_excepthook(thread: threading.Thread) -> None:
        if not isinstance(sys.exc_info()[1], Cancelled):
            invoke(thread)

    return invoke_excepthook


def forget_threads() -> None:
    """In the child of a fork only the forking thread is there."""
    for thread in list(alive):
        if thread.state is not State.RUNNING:
            del alive[thread]


after_fork_hooks.append(forget_threads)
