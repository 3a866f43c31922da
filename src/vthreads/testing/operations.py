"""Points at the operations by which threads meet: locks, checkpoints, and the start of threads.

While instrumented, the classes below have other methods, which tell the run under way of what their thread is about to
do or has done. On any other carrier, and on plain OS threads, they only call the original. Kept as well is who waits
for which lock or thread and who holds which lock, since a lock does not know. Nothing here decides who runs.
"""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from types import CodeType, FrameType
from typing import Any, NamedTuple

from .. import queues
from .._core.current import running
from .._core.group import ThreadGroup
from .._core.semaphore import Semaphore
from .._core.thread import VirtualThread
from ..events import Event
from ..locks import Lock, RLock
from ..standard_locks import ConditionWaiterLock, StandardLock, StandardRLock
from .interleaving import START, Interleaving, Place
from .user_code import UserCode

__all__ = ["Held", "Meetings"]

Undo = Callable[[], None]


class Held(NamedTuple):
    """Who holds a lock, and where it was taken."""

    thread: VirtualThread
    place: Place | None


class _Frame(Enum):
    """What a frame between an operation and the program says of the operation."""

    USER = "the program itself"
    OWN = "of this package"
    LIBRARY = "of a library, whose work with locks is the program's"
    MACHINERY = "book-keeping of threads and imports, of no concern to the program"


MACHINERY = {
    "threading": ("Thread.start", "Thread.join", "Thread._bootstrap", "Thread._delete", "Thread._stop"),
    "importlib._bootstrap": ("",),
    "importlib._bootstrap_external": ("",),
}
PACKAGE = __name__.partition(".")[0]


class Meetings:
    """What threads do to each other in the runs of one exploration.

    Args:
        user_code: tells the frames of the program.
        traced: whether a run is stopped before each instruction of the program anyway.
    """

    def __init__(self, user_code: UserCode, traced: bool) -> None:
        self.run: Interleaving | None = None
        # Whether to keep where locks were taken, which takes time.
        self.watched = False
        # What each thread waits for: a lock, another thread, or None.
        self.awaited: dict[VirtualThread, Any] = {}
        self.held: dict[Any, Held] = {}
        # Those that are being given back right now.
        self.released: list[Any] = []
        self.user_code = user_code
        self._traced = traced
        self._kinds: dict[CodeType, _Frame] = {}

    def begin(self, run: Interleaving, watched: bool) -> None:
        """Listen to the threads of `run`; keep what describes a standstill, if that is `watched` for."""
        self.run, self.watched = run, watched
        self.awaited.clear()
        self.held.clear()

    def end(self) -> None:
        """Listen to nobody."""
        self.run = None

    def holder(self, lock: Any) -> Held | None:
        """Who holds `lock`, as far as that is known."""
        if not isinstance(lock, RLock):
            return self.held.get(lock)
        owner = lock.statistics().owner
        assert self.run is not None
        threads = [thread for thread in self.run.threads if thread.thread_ident == owner]
        return Held(threads[0], self.held[lock].place if lock in self.held else None) if threads else None

    def here(self) -> VirtualThread | None:
        """The thread that runs here, if it belongs to the run under way."""
        run, thread = self.run, running()
        return thread if run is not None and thread is not None and thread.scheduler is run.scheduler else None

    def point(self, frame: FrameType | None) -> None:
        """Be at an operation that `frame` called."""
        run = self.run
        assert run is not None
        # While nobody else could run, it does not matter where this is.
        place = self._place(frame) if run.ready or run.abandoned else START
        if place is not None:
            run.point(*place)

    def _place(self, frame: FrameType | None) -> Place | None:
        """The place of the operation in the program; None if nobody has to be stopped there."""
        assert frame is not None
        # Written out, since it takes most of the time of a run at checkpoints.
        kinds, called_directly, innermost = self._kinds, True, frame
        while (kind := kinds.get(frame.f_code) or self._kind(frame)) is not _Frame.USER:
            if kind is _Frame.MACHINERY:
                return None
            called_directly = called_directly and kind is _Frame.OWN
            if frame.f_back is None or frame.f_code.co_qualname == "Thread.run":
                # A thread whose function is the library's.
                return Place(innermost.f_code, None, innermost.f_lineno)
            frame = frame.f_back
        # The instruction that called it was a point already.
        return None if called_directly and self._traced else Place(frame.f_code, None, frame.f_lineno)

    def place_of_program(self, frame: FrameType | None) -> Place | None:
        """The innermost place in the program, from `frame` outwards."""
        while frame is not None:
            if self._kind(frame) is _Frame.USER:
                return Place(frame.f_code, None, frame.f_lineno)
            frame = frame.f_back
        return None

    def is_program(self, frame: FrameType) -> bool:
        """Whether `frame` runs the program itself."""
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
        """While inside, the methods of the table below tell this object."""
        undo: list[Undo] = []
        try:
            for cls, name, make in OPERATIONS:
                if not cls.__flags__ & IMMUTABLE:
                    undo.append(_set(cls, name, make(self, getattr(cls, name))))
            yield
        finally:
            while undo:
                undo.pop()()


# Of a type that is compiled.
IMMUTABLE = 1 << 8


def _set(cls: type, name: str, method: Any) -> Undo:
    if name in vars(cls):
        old = vars(cls)[name]
        setattr(cls, name, method)
        return lambda: setattr(cls, name, old)
    setattr(cls, name, method)
    return lambda: delattr(cls, name)


# --- the methods

Method = Callable[..., Any]


def _check(meetings: Meetings, original: Method) -> Method:
    def check(self: VirtualThread) -> None:
        # Whoever is about to wait for a lock or a thread has passed its point.
        if meetings.here() is self and meetings.awaited.get(self) is None:
            meetings.point(sys._getframe(1))
        original(self)

    return check


def _point_after(meetings: Meetings, original: Method) -> Method:
    def operation(self: Any, *args: Any, **keywords: Any) -> Any:
        result = original(self, *args, **keywords)
        if meetings.here() is not None:
            meetings.point(sys._getframe(1))
        return result

    return operation


def _acquire(meetings: Meetings, original: Method) -> Method:
    def acquire(self: Any, *args: Any, **keywords: Any) -> Any:
        thread = meetings.here()
        if thread is None or meetings.awaited.get(thread) is self:
            # The second one is `__enter__` that calls `acquire`, or `acquire` that calls itself in the class above.
            return original(self, *args, **keywords)
        frame = sys._getframe(1)
        meetings.point(frame)
        # To join a thread is to take a lock, on some versions, so this may be inside another wait.
        before, meetings.awaited[thread] = meetings.awaited.get(thread), self
        try:
            taken = original(self, *args, **keywords)
        finally:
            meetings.awaited[thread] = before
        if taken and meetings.watched:
            meetings.held[self] = Held(thread, meetings.place_of_program(frame))
        return taken

    return acquire


def _release(meetings: Meetings, original: Method) -> Method:
    def release(self: Any, *args: Any, **keywords: Any) -> Any:
        # By this lock of its own the standard library's Condition wakes who waits, who cannot go on yet.
        inner = meetings.here() is None or self in meetings.released or isinstance(self, ConditionWaiterLock)
        if inner:
            return original(self, *args, **keywords)
        meetings.held.pop(self, None)
        meetings.released.append(self)
        try:
            result = original(self, *args, **keywords)
        finally:
            meetings.released.remove(self)
        meetings.point(sys._getframe(1))
        return result

    return release


def _join(meetings: Meetings, original: Method) -> Method:
    def join(self: Any, *args: Any, **keywords: Any) -> Any:
        thread = meetings.here()
        if thread is None:
            return original(self, *args, **keywords)
        before, meetings.awaited[thread] = meetings.awaited.get(thread), self
        try:
            return original(self, *args, **keywords)
        finally:
            meetings.awaited[thread] = before

    return join


def _start(meetings: Meetings, original: Method) -> Method:
    """A thread of the standard library is there when it has said that it runs; then others may come first."""

    def start(self: threading.Thread) -> None:
        thread = meetings.here()
        if thread is None or meetings.run is None:
            original(self)
            return
        run, attributes = self.run, vars(self)
        before = attributes.get("run")

        def run_after_a_point() -> None:
            if before is None:
                del attributes["run"]
            else:
                attributes["run"] = before
            if meetings.run is not None:
                meetings.run.point(*START)
            run()

        # In front of the method of the class.
        attributes["run"] = run_after_a_point
        starting = meetings.run.starting
        starting.add(thread)
        try:
            original(self)
        finally:
            starting.discard(thread)

    return start


def _readable(meetings: Meetings, original: Method) -> Method:
    """What a compiled engine has instead does not call the methods below."""
    readable: Method = inspect.unwrap(original)
    return readable


def _launch(meetings: Meetings, original: Method) -> Method:
    """A child does not run at once: who is next is a decision like others."""

    def launch(self: ThreadGroup, thread: VirtualThread) -> None:
        if meetings.here() is None or not thread.is_here():
            original(self, thread)
            return
        thread.scheduler.make_ready(thread)
        meetings.point(sys._getframe(1))

    return launch


OPERATIONS: list[tuple[type, str, Callable[[Meetings, Method], Method]]] = [
    (VirtualThread, "check", _check),
    # Taking a free lock of the standard library is no checkpoint, and giving back never is.
    (StandardLock, "acquire", _acquire),
    (StandardLock, "__enter__", _acquire),
    (StandardLock, "release", _release),
    (StandardLock, "__exit__", _release),
    (StandardRLock, "acquire", _acquire),
    (StandardRLock, "__enter__", _acquire),
    (StandardRLock, "release", _release),
    (StandardRLock, "__exit__", _release),
    (StandardRLock, "_release_save", _release),
    # What programs use that know this package. Where these are compiled, only their waits are points.
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
    (ThreadGroup, "spawn", _readable),
    (ThreadGroup, "_launch", _launch),
]
