"""`threading.Thread` on virtual threads: the replacements that `patch(threads=True)` installs in `_thread`.

`threading` stays the standard library's code. Where it starts an OS thread, a virtual thread starts on the carrier of
the caller instead. An OS thread that is not a carrier still starts OS threads, except the main thread, which becomes a
carrier. As in CPython, a thread begins with an empty context. Daemon threads, and threads that were started through
`_thread.start_new_thread` directly, are not joined at exit. The others are, after thread pools have been shut down.

Python 3.11 and 3.12 detect the end of a thread by a lock, the sentinel; 3.13 and later by a handle.
"""

from __future__ import annotations

import _thread
import sys
import threading
from collections.abc import Callable
from contextvars import Context
from typing import Any

from .._calls.standard_locks import StandardLock
from .._core.current import on_carrier, running, started_here
from .._core.engine import State
from .._core.exceptions import without_cancelled
from .._core.originals import get_ident
from .._core.os_thread_kinds import own_os_threads
from .._core.participants import Participant, participate
from .._core.thread import VirtualThread
from .tracing import trace_alone

__all__ = [
    "ThreadHandle",
    "count",
    "creating_short_lived_pools",
    "is_virtual",
    "set_sentinel",
    "standard_threads",
    "start_joinable_thread",
    "start_new_thread",
]

original_count = _thread._count
original_start_new_thread = _thread.start_new_thread
original_set_sentinel: Any = getattr(_thread, "_set_sentinel", None)
original_start_joinable_thread: Any = getattr(_thread, "start_joinable_thread", None)
OriginalHandle: Any = getattr(_thread, "_ThreadHandle", None)

# The attribute in which a `threading.Thread` stores its handle.
HANDLE = "_os_thread_handle" if sys.version_info >= (3, 14) else "_handle"

# Modules whose helper threads stay OS threads. The helpers of pools and queues live as long as the pool, which may be
# longer than the carrier, and `atexit` functions end them. The helper of the resource sharer blocks all signals, which
# would block them for the whole carrier and all children.
WITH_OS_THREADS = frozenset(
    {
        "concurrent.futures.process",
        "loky.backend.queues",
        "loky.process_executor",
        "multiprocessing.pool",
        "multiprocessing.queues",
        "multiprocessing.resource_sharer",
    }
)

# Virtual threads that create a pool of threads that is not used after their run. Its helpers are virtual threads, too.
creating_short_lived_pools: set[VirtualThread] = set()

# Virtual threads started here that have not ended, each with its sentinel, if it has one yet.
alive: dict[VirtualThread, StandardLock | None] = {}


def start_new_thread(function: Callable[..., Any], args: tuple[Any, ...], /, *kwargs: dict[str, Any]) -> int:
    """`_thread.start_new_thread`. Not a checkpoint."""
    is_call = callable(function) and isinstance(args, tuple) and all(isinstance(given, dict) for given in kwargs)
    # The original raises the error for wrong arguments.
    if not is_call or len(kwargs) > 1 or not _spawns_here(function):
        return original_start_new_thread(function, args, *kwargs)
    sys.audit("_thread.start_new_thread", function, args, *kwargs)
    owner = _owner_of(function)
    return _start(function, args, *kwargs, daemon=owner is None or owner.daemon)._thread_ident


def start_joinable_thread(function: Callable[[], Any], handle: Any = None, daemon: bool = True) -> Any:
    """`_thread.start_joinable_thread`, of Python 3.13 and later. Not a checkpoint."""
    owner = _owner_of(function)
    if type(handle) is OriginalHandle and owner is not None and vars(owner).get(HANDLE) is handle:
        # The Thread was created before patching, so it has an original handle.
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
    """`_thread._count`, without the runtime's own OS threads."""
    return original_count() - len(own_os_threads) + len(alive)


class ThreadHandle:
    """Replacement for `_thread._ThreadHandle`: `threading.Thread` waits with it for the end of its thread."""

    def __init__(self) -> None:
        self._os_handle = OriginalHandle()
        self._thread: VirtualThread | None = None
        self._is_set_done = False

    def __repr__(self) -> str:
        return f"<_ThreadHandle object: ident={self.ident}>"

    def start(self, function: Callable[[], Any], daemon: bool) -> ThreadHandle:
        """Start the thread of this handle."""
        if self._thread is not None:
            raise RuntimeError("thread already started")
        if not _spawns_here(function):
            original_start_joinable_thread(function, self._os_handle, daemon)
            return self
        sys.audit("_thread.start_joinable_thread", function, daemon, self)
        # The thread runs at once and may ask for its own ident, so store it before the first run.
        _start(function, daemon=daemon, when_made=self._is_of)
        return self

    def _is_of(self, thread: VirtualThread) -> None:
        self._thread = thread

    @property
    def is_virtual(self) -> bool:
        """Whether the thread has been started, and as a virtual thread."""
        return self._thread is not None

    @property
    def ident(self) -> int:
        """The ident of the thread; 0 before its start."""
        ident: int = self._os_handle.ident if self._thread is None else self._thread._thread_ident
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
    """Return whether `thread` was started as a virtual thread."""
    handle = vars(thread).get(HANDLE)
    if handle is not None:
        return isinstance(handle, ThreadHandle) and handle.is_virtual
    return isinstance(vars(thread).get("_tstate_lock"), StandardLock)


def standard_threads() -> list[VirtualThread]:
    """Return the virtual threads that the standard library has started and that have not ended, oldest first.

    With `patch(threads=True)`, `threading.Thread` starts virtual threads, also for libraries that keep no reference to
    them. A thread has the name of its `threading.Thread`; its `cancel` ends it:

        for thread in vthreads.standard_threads():
            if thread.name.startswith("subscriber"):
                thread.cancel()

    Not a checkpoint; thread-safe.
    """
    return list(alive)


def _owner_of(function: Any) -> threading.Thread | None:
    """Return the `threading.Thread` that is being started, or None if `function` is not its method."""
    owner = getattr(function, "__self__", None)
    return owner if isinstance(owner, threading.Thread) else None


def _stays_an_os_thread(owner: threading.Thread | None) -> bool:
    made_by = type(owner) if type(owner) is not threading.Thread else getattr(owner, "_target", None)
    module = getattr(made_by, "__module__", None)
    return module in WITH_OS_THREADS and running() not in creating_short_lived_pools


def _spawns_here(function: Callable[..., Any]) -> bool:
    """Return whether a thread started here becomes a virtual thread. May make the main thread a carrier."""
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
    scheduler = started_here()._scheduler
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
    """The function that the virtual thread runs."""
    thread = running()
    assert thread is not None
    end_tracing = trace_alone(thread)
    try:
        if args or kwargs:
            function(*args, **kwargs)
        else:
            # The call with `*` and `**` puts more on the C stack, which is copied at each switch.
            function()
    finally:
        sentinel = alive.pop(thread, None)
        if sentinel is not None and sentinel.locked():
            sentinel.release()
        _forget_dummy(thread._thread_ident)
        end_tracing()


def _forget_dummy(ident: int) -> None:
    """Remove the dummy object that `threading` has created for a virtual thread that it did not start.

    Python 3.13 and later remove it at the end of the thread. Before, it stays until another thread with the same ident
    starts; idents of virtual threads are not reused, so the objects would pile up.
    """
    known: dict[int, threading.Thread] = threading._active  # type: ignore[attr-defined]  # not in the type stubs
    thread = known.get(ident)
    # After a fork in such a thread, `threading` takes this object for the main thread of the child. Python needs it
    # among the known threads until the interpreter ends.
    if isinstance(thread, threading._DummyThread) and thread is not threading.main_thread():
        known.pop(ident, None)


def _silent_when_cancelled(invoke: Callable[[threading.Thread], None]) -> Callable[[threading.Thread], None]:
    """Wrap the excepthook call: a thread that the runtime has cancelled did not fail, so report nothing."""

    def invoke_excepthook(thread: threading.Thread) -> None:
        error = sys.exc_info()[1]
        if error is None or without_cancelled(error) is not None:
            invoke(thread)

    return invoke_excepthook


def forget_threads() -> None:
    """Remove all but the forking thread, in the child of a fork: the others do not exist there."""
    for thread in list(alive):
        if thread.state is not State.RUNNING:
            del alive[thread]


participate(__name__, Participant(forked=forget_threads))
