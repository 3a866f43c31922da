"""Where in the user's code a virtual thread is, told without reading a file.

To read one may park, and who asks may be in the midst of parking.
"""

from __future__ import annotations

import sysconfig
from types import FrameType

from .. import checkpoints
from .._core.deadlock import describe_wait
from .._core.spawn_site import is_own_frame
from .._core.thread import VirtualThread

__all__ = ["describe_call"]

STANDARD_LIBRARY = sysconfig.get_path("stdlib")
INSTALLED = sysconfig.get_path("purelib")


def describe_call(thread: VirtualThread) -> str:
    """What the running or parked `thread` waits in: the call that the user's code made, and the line that made it."""
    frame, called = thread.frame(), None
    while frame is not None and not _is_users(frame):
        frame, called = frame.f_back, frame
    if frame is None or called is None:
        return describe_wait(thread)
    place = f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
    return f"{_name_of(called)}, called at {place}"


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
