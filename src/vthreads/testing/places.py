"""Where in the user's code a virtual thread is, told without reading a file.

To read one may park, and who asks may be in the midst of parking.
"""

from __future__ import annotations

import sysconfig
from types import FrameType

from .._core.deadlock import describe_wait
from .._core.spawn_site import first_frame_outside
from .._core.thread import VirtualThread

__all__ = ["describe_call"]

STANDARD_LIBRARY = sysconfig.get_path("stdlib")
INSTALLED = sysconfig.get_path("purelib")


def describe_call(thread: VirtualThread) -> str:
    """What the running or parked `thread` waits in, and the line of the user's code that led there."""
    waits_in = describe_wait(thread)
    frame = first_frame_outside(thread.frame())
    user = _first_outside_standard_library(frame)
    if user is None or user is frame:
        return waits_in
    return f"{waits_in}, by {user.f_code.co_filename}:{user.f_lineno} in {user.f_code.co_name}"


def _first_outside_standard_library(frame: FrameType | None) -> FrameType | None:
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith((STANDARD_LIBRARY, "<frozen")) or name.startswith(INSTALLED):
            return frame
        frame = first_frame_outside(frame.f_back)
    return None
