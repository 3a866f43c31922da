"""Where in the user's code a virtual thread is, told without reading a file.

To read one may park, and who asks may be in the midst of parking.
"""

from __future__ import annotations

import sysconfig
from types import FrameType

from .. import checkpoints
from .._core.deadlock import describe_wait
from .._core.engine import Fiber, State
from .._core.spawn_site import is_own_frame
from .._core.thread import VirtualThread
from .._core.wait_queue import WaitQueue
from ..os_calls import name_of

__all__ = ["describe_call"]

STANDARD_LIBRARY = sysconfig.get_path("stdlib")
PACKAGE = __name__.rpartition(".")[0]
# Modules that do not say what is waited for, but how, or that watch it.
MACHINE = (
    __name__.rpartition(".")[0],
    VirtualThread.__module__,
    WaitQueue.__module__,
    Fiber.__module__,
    State.__module__,
)
INSTALLED = sysconfig.get_path("purelib")


def describe_call(thread: VirtualThread) -> str:
    """What the running or parked `thread` waits in: the call that the user's code made, and the line that made it.

    A call that is compiled has a name only while it parks; at its checkpoint before that, there is the line alone.
    """
    frame, called = thread.frame(), None
    while frame is not None and not _is_users(frame):
        if not frame.f_globals["__name__"].startswith(MACHINE):
            called = frame
        frame = frame.f_back
    if frame is None:
        if called is None and thread.waits_for is None and thread._call is not None:
            # A compiled function that was spawned, before it parks: all that it has is its name.
            return f"{name_of(thread._call[0])}(), which was spawned"
        return describe_wait(thread)
    place = f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
    if called is not None:
        return f"{_name_of(called)}, called at {place}"
    return f"a checkpoint at {place}" if thread.waits_for is None else describe_wait(thread)


def _is_users(frame: FrameType) -> bool:
    name = frame.f_code.co_filename
    if name.startswith((STANDARD_LIBRARY, "<frozen")) and not name.startswith(INSTALLED):
        return False
    return not is_own_frame(frame)


def _name_of(called: FrameType) -> str:
    name = called.f_code.co_qualname
    if called.f_globals is vars(checkpoints):
        # Stands around a function of the standard library.
        function = called.f_locals.get("function") or called.f_locals["other"].__wrapped__
        name, arguments = function.__qualname__, called.f_locals.get("args", ())
        return f"{name}() of {arguments[0]!r}" if arguments else f"{name}()"
    return f"{name}() of {called.f_locals['self']!r}" if "self" in called.f_locals else f"{name}()"
