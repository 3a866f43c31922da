"""Describe where in the user's code a virtual thread is, without reading a file.

Reading a file may park, and the caller may be in the middle of parking.
"""

from __future__ import annotations

import sysconfig
from types import FrameType

from .._calls import guards as checkpoints
from .._core.deadlock import describe_wait, shown
from .._core.engine import Fiber, State
from .._core.spawn_site import is_own_frame
from .._core.thread import VirtualThread
from .._core.wait_queue import WaitQueue
from .._os_threads.calls import name_of
from .._patching import refusals

__all__ = ["describe_call"]

STANDARD_LIBRARY = sysconfig.get_path("stdlib")
PACKAGE = __name__.rpartition(".")[0]
# Modules that show how a thread waits but not for what, and modules that observe or wrap its calls.
MACHINE = (
    __name__.rpartition(".")[0],
    VirtualThread.__module__,
    WaitQueue.__module__,
    Fiber.__module__,
    State.__module__,
    refusals.__name__,
)
INSTALLED = sysconfig.get_path("purelib")


def describe_call(thread: VirtualThread) -> str:
    """Describe what the running or parked `thread` waits in: the call that the user's code made, and its line.

    A compiled call has a name only while it parks; at its checkpoint before that, only the line is known.
    """
    frame, called = thread._frame(), None
    while frame is not None and not _is_users(frame):
        if not frame.f_globals["__name__"].startswith(MACHINE):
            called = frame
        frame = frame.f_back
    if frame is None:
        if called is None and thread._waits_for is None and thread._call is not None:
            # A spawned compiled function before it parks: only its name is known.
            return f"{name_of(thread._call[0])}(), which was spawned"
        return describe_wait(thread)
    place = f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
    if called is not None:
        return f"{_name_of(called)}, called at {place}"
    return f"a checkpoint at {place}" if thread._waits_for is None else describe_wait(thread)


def _is_users(frame: FrameType) -> bool:
    name = frame.f_code.co_filename
    if name.startswith((STANDARD_LIBRARY, "<frozen")) and not name.startswith(INSTALLED):
        return False
    return not is_own_frame(frame)


def _name_of(called: FrameType) -> str:
    name = called.f_code.co_qualname
    if called.f_globals is vars(checkpoints):
        # This frame wraps a function of the standard library: name that function.
        function = called.f_locals.get("function") or called.f_locals["other"].__wrapped__
        name, arguments = function.__qualname__, called.f_locals.get("args", ())
        return f"{name}() of {shown(arguments[0])}" if arguments else f"{name}()"
    return f"{name}() of {shown(called.f_locals['self'])}" if "self" in called.f_locals else f"{name}()"
