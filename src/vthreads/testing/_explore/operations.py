"""Points at operations by which threads affect each other: locks, checkpoints, and the start of threads.

While instrumented, the classes below have other methods, which report to the current run what their thread is about to
do or has done. On other carriers, and on plain OS threads, these only call the original. They also record which thread
waits for which lock or thread, and which holds which lock, because locks do not. This module makes no decisions.
"""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from enum import Enum
from multiprocessing.pool import Pool, ThreadPool
from types import CodeType, FrameType
from typing import Any, NamedTuple

from ..._calls.standard_locks import ConditionWaiterLock, StandardLock, StandardRLock
from ..._core.current import running
from ..._core.group import ThreadGroup
from ..._core.members import Members
from ..._core.semaphore import Semaphore
from ..._core.thread import VirtualThread
from ..._patching.references import Undo, set_attribute
from ..._patching.threads import creating_short_lived_pools
from ..._sync import queues
from ..._sync.events import Event
from ..._sync.locks import Lock, RLock
from .interleaving import START, Interleaving, Place
from .pools import Pools
from .user_code import UserCode

__all__ = ["Held", "Operations"]


class Held(NamedTuple):
    """The holder of a lock, and where it acquired the lock."""

    thread: VirtualThread
    place: Place | None


class _Frame(Enum):
    """The meaning of a frame between an operation and the program."""

    USER = "the program itself"
    OWN = "of this package"
    LIBRARY = "of a library, whose use of locks counts as the program's"
    MACHINERY = "bookkeeping of threads and imports, which is not part of the program"


MACHINERY = {
    "threading": ("Thread.start", "Thread.join", "Thread._bootstrap", "Thread._delete", "Thread._stop"),
    "importlib._bootstrap": ("",),
    "importlib._bootstrap_external": ("",),
}
PACKAGE = __name__.partition(".")[0]


class Operations:
    """Records what threads do to each other in the runs of an exploration.

    Args:
        user_code: identifies the frames of the program.
        traced: whether a run is stopped before each instruction of the program anyway.
    """

    def __init__(self, user_code: UserCode, traced: bool) -> None:
        self.run: Interleaving | None = None
        # Whether to record where locks were acquired, which takes time.
        self.watched = False
        # The lock or thread that each thread waits for; None for no wait.
        self.awaited: dict[VirtualThread, Any] = {}
        self.held: dict[Any, Held] = {}
        # Locks that are being released at this moment.
        self.released: list[Any] = []
        self.user_code = user_code
        self._traced = traced
        self.pools = Pools()
        self._kinds: dict[CodeType, _Frame] = {}

    def begin(self, run: Interleaving, watched: bool) -> None:
        """Start recording the threads of `run`; with `watched`, also what a description of a deadlock needs."""
        self.run, self.watched = run, watched
        self.awaited.clear()
        self.held.clear()

    def end(self) -> None:
        """Stop recording."""
        self.run = None
        self.pools.restore()

    def holder(self, lock: Any) -> Held | None:
        """Return the holder of `lock`, if known."""
        if not isinstance(lock, RLock):
            return self.held.get(lock)
        owner = lock.statistics().owner
        assert self.run is not None
        threads = [thread for thread in self.run.threads if thread._thread_ident == owner]
        return Held(threads[0], self.held[lock].place if lock in self.held else None) if threads else None

    def here(self) -> VirtualThread | None:
        """Return the running thread, if it belongs to the current run."""
        run, thread = self.run, running()
        return thread if run is not None and thread is not None and thread._scheduler is run.scheduler else None

    def point(self, frame: FrameType | None) -> None:
        """Pass a point at an operation that `frame` called."""
        run = self.run
        assert run is not None
        # While no other thread could run, the place is not needed.
        place = self._place(frame) if run.ready or run.abandoned else START
        if place is not None:
            run.point(*place)

    def _place(self, frame: FrameType | None) -> Place | None:
        """Return the place of the operation in the program; None if it is not a point."""
        assert frame is not None
        # Inlined, because this takes most of the time of a run with points="checkpoints".
        kinds, called_directly, innermost = self._kinds, True, frame
        while (kind := kinds.get(frame.f_code) or self._kind(frame)) is not _Frame.USER:
            if kind is _Frame.MACHINERY:
                return None
            called_directly = called_directly and kind is _Frame.OWN
            if frame.f_back is None or frame.f_code.co_qualname == "Thread.run":
                # The thread's function belongs to a library.
                return Place(innermost.f_code, None, innermost.f_lineno)
            frame = frame.f_back
        # If every instruction is traced, the instruction that called the operation was a point already.
        return None if called_directly and self._traced else Place(frame.f_code, None, frame.f_lineno)

    def place_of_program(self, frame: FrameType | None) -> Place | None:
        """Return the innermost place in the program, from `frame` outwards."""
        while frame is not None:
            if self._kind(frame) is _Frame.USER:
                return Place(frame.f_code, None, frame.f_lineno)
            frame = frame.f_back
        return None

    def is_program(self, frame: FrameType) -> bool:
        """Return whether `frame` runs the program itself."""
        return self._kind(frame) is _Frame.USER

    def _kind(self, frame: FrameType) -> _Frame:
        kind = self._kinds.get(frame.f_code)
        if kind is None:
            kind = self._kinds[frame.f_code] = self._find_kind(frame)
        return kind

    def _find_kind(self, frame: FrameType) -> _Frame:
        if frame in self.user_code:
            return _Frame.USER
        module = str(frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] == PACKAGE:
            return _Frame.OWN
        name = frame.f_code.co_qualname
        hidden = any(name.startswith(prefix) for prefix in MACHINERY.get(module, ()))
        return _Frame.MACHINERY if hidden else _Frame.LIBRARY

    @contextmanager
    def instrumented(self) -> Iterator[None]:
        """Install the methods of the table below during the block."""
        undo: list[Undo] = []
        try:
            for cls, name, make in OPERATIONS:
                if not cls.__flags__ & IMMUTABLE:
                    undo.append(set_attribute(cls, name, make(self, getattr(cls, name))))
            yield
        finally:
            while undo:
                undo.pop()()


# Type flag of a compiled class, whose methods cannot be replaced.
IMMUTABLE = 1 << 8


# --- the methods

Method = Callable[..., Any]


def _check(operations: Operations, original: Method) -> Method:
    def check(self: VirtualThread) -> None:
        # A thread that is about to wait for a lock or thread has passed its point already.
        if operations.here() is self and operations.awaited.get(self) is None:
            operations.point(sys._getframe(1))
        original(self)

    return check


def _point_after(operations: Operations, original: Method) -> Method:
    def operation(self: Any, *args: Any, **keywords: Any) -> Any:
        result = original(self, *args, **keywords)
        if operations.here() is not None:
            operations.point(sys._getframe(1))
        return result

    return operation


def _acquire(operations: Operations, original: Method) -> Method:
    def acquire(self: Any, *args: Any, **keywords: Any) -> Any:
        thread = operations.here()
        if thread is None or operations.awaited.get(thread) is self:
            # A nested call: `__enter__` calls `acquire`, or `acquire` calls `acquire` of the base class.
            return original(self, *args, **keywords)
        frame = sys._getframe(1)
        operations.point(frame)
        # In some Python versions, joining a thread acquires a lock, so this may be inside another wait.
        before, operations.awaited[thread] = operations.awaited.get(thread), self
        try:
            taken = original(self, *args, **keywords)
        finally:
            operations.awaited[thread] = before
        if taken and operations.watched:
            operations.held[self] = Held(thread, operations.place_of_program(frame))
        return taken

    return acquire


def _release(operations: Operations, original: Method) -> Method:
    def release(self: Any, *args: Any, **keywords: Any) -> Any:
        # The standard library's Condition notifies a waiter by this lock. The waiter cannot continue yet: not a point.
        inner = operations.here() is None or self in operations.released or isinstance(self, ConditionWaiterLock)
        if inner:
            return original(self, *args, **keywords)
        operations.held.pop(self, None)
        operations.released.append(self)
        try:
            result = original(self, *args, **keywords)
        finally:
            operations.released.remove(self)
        operations.point(sys._getframe(1))
        return result

    return release


def _join(operations: Operations, original: Method) -> Method:
    def join(self: Any, *args: Any, **keywords: Any) -> Any:
        thread = operations.here()
        if thread is None:
            return original(self, *args, **keywords)
        before, operations.awaited[thread] = operations.awaited.get(thread), self
        try:
            return original(self, *args, **keywords)
        finally:
            operations.awaited[thread] = before

    return join


def _start(operations: Operations, original: Method) -> Method:
    """Wrap `Thread.start`: a started thread reports that it runs, and only then passes a point before its function."""

    def start(self: threading.Thread) -> None:
        thread = operations.here()
        if thread is None or operations.run is None:
            original(self)
            return
        run, attributes = self.run, vars(self)
        before = attributes.get("run")

        def run_after_a_point() -> None:
            if before is None:
                del attributes["run"]
            else:
                attributes["run"] = before
            if operations.run is not None:
                operations.run.point(*START)
            run()

        # The attribute of the instance hides the method of the class.
        attributes["run"] = run_after_a_point
        starting = operations.run.starting
        starting.add(thread)
        try:
            original(self)
        finally:
            starting.discard(thread)

    return start


def _submit(operations: Operations, original: Method) -> Method:
    def submit(self: ThreadPoolExecutor, /, *args: Any, **keywords: Any) -> Any:
        if operations.here() is not None:
            operations.pools.renew_executor(self)
        return original(self, *args, **keywords)

    return submit


def _check_running(operations: Operations, original: Method) -> Method:
    """Wrap the method that each call of a `multiprocessing.pool.Pool` begins with."""

    def check_running(self: Any) -> None:
        if operations.here() is not None and isinstance(self, ThreadPool):
            operations.pools.renew(self)
        original(self)

    return check_running


def _create_pool(operations: Operations, original: Method) -> Method:
    """Wrap the creation of a pool of threads: all its threads are threads of the run."""

    def create_pool(self: ThreadPool, *args: Any, **keywords: Any) -> None:
        thread = operations.here()
        if thread is None:
            original(self, *args, **keywords)
            return
        creating_short_lived_pools.add(thread)
        try:
            original(self, *args, **keywords)
        finally:
            creating_short_lived_pools.discard(thread)

    return create_pool


def _readable(operations: Operations, original: Method) -> Method:
    """Use the Python method: the compiled one does not call the methods below."""
    readable: Method = inspect.unwrap(original)
    return readable


def _launch(operations: Operations, original: Method) -> Method:
    """Wrap the launch of a child: it does not run at once, but which thread runs next is an ordinary decision."""

    def launch(self: Members, thread: VirtualThread) -> None:
        if operations.here() is None or not thread._is_here():
            original(self, thread)
            return
        thread._scheduler.make_ready(thread)
        operations.point(sys._getframe(1))

    return launch


OPERATIONS: list[tuple[type, str, Callable[[Operations, Method], Method]]] = [
    (VirtualThread, "_check", _check),
    # Acquiring a free lock of the standard library is not a checkpoint, and releasing never is, so both need points.
    (StandardLock, "acquire", _acquire),
    (StandardLock, "__enter__", _acquire),
    (StandardLock, "release", _release),
    (StandardLock, "__exit__", _release),
    (StandardRLock, "acquire", _acquire),
    (StandardRLock, "__enter__", _acquire),
    (StandardRLock, "release", _release),
    (StandardRLock, "__exit__", _release),
    (StandardRLock, "_release_save", _release),
    # The classes of this package. Where these are compiled, only their waits are points.
    (Lock, "release", _release),
    (RLock, "release", _release),
    (RLock, "_release_save", _release),
    (Event, "set", _point_after),
    (Semaphore, "release", _point_after),
    (queues.Queue, "put", _point_after),
    (queues.Queue, "get", _point_after),
    (queues.SimpleQueue, "put", _point_after),
    (queues.SimpleQueue, "get", _point_after),
    (threading.Thread, "start", _start),
    (threading.Thread, "join", _join),
    (ThreadPoolExecutor, "submit", _submit),
    (ThreadPool, "__init__", _create_pool),
    (Pool, "_check_running", _check_running),
    (ThreadGroup, "spawn", _readable),
    (Members, "spawn", _readable),
    (Members, "_launch", _launch),
]
