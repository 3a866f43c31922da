"""Stacks as data: file, line and function of each call, outermost first.

The frames of the runtime itself are left out. What is taken from another OS thread's carrier may be torn: each frame is
one that was there, but its carrier may go on between two of them.
"""

from __future__ import annotations

from types import FrameType
from typing import Any

from .._core.engine import Scheduler, State
from .._core.originals import get_ident
from .._core.runtime import frames_of_os_threads
from .._core.spawn_site import first_frame_outside
from .._core.thread import VirtualThread
from .sources import lines_of

__all__ = ["Place", "add_source", "frame_of", "place_of", "stack_from"]

# {"file": str, "line": int, "function": str}, and later "source": str
Place = dict[str, Any]


def frame_of(thread: VirtualThread, scheduler: Scheduler) -> FrameType | None:
    """The innermost frame of `thread`, asked from any OS thread; None before its first run."""
    if get_ident() == scheduler.ident:
        return thread.frame()
    greenlet = thread._greenlet
    frame: FrameType | None = None if greenlet is None else greenlet.gr_frame
    is_on_its_os_thread = scheduler.running is thread or (
        # It found nobody ready, and polls on its own stack. (One that waits in a compiled call may have no frame.)
        thread.state is State.PARKED and greenlet is not None and frame is None and thread.waits_for is None
    )
    return frames_of_os_threads().get(scheduler.ident) if is_on_its_os_thread else frame


def place_of(frame: FrameType) -> Place:
    """Where `frame` is."""
    return {"file": frame.f_code.co_filename, "line": frame.f_lineno or 0, "function": frame.f_code.co_qualname}


def stack_from(frame: FrameType | None) -> list[Place]:
    """The calls from the outermost to `frame`, without those of this package."""
    places = []
    frame = first_frame_outside(frame)
    while frame is not None:
        places.append(place_of(frame))
        frame = first_frame_outside(frame.f_back)
    return places[::-1]


def add_source(places: list[Place]) -> None:
    """Add to each place the text of its line. Apart from the rest, since it reads files."""
    for place in places:
        lines = lines_of(place["file"])
        place["source"] = lines[place["line"] - 1].strip() if 0 < place["line"] <= len(lines) else ""
