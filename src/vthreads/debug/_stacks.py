"""Stacks as data: file, line and function of each call, outermost first.

Frames of the runtime itself are left out. A stack that is read from another OS thread may be inconsistent: each frame
existed, but the carrier may continue between two of them.
"""

from __future__ import annotations

from types import CodeType, FrameType
from typing import Any

from .._core.engine import Scheduler
from .._core.originals import get_ident
from .._core.os_thread_kinds import frames_of_os_threads
from .._core.spawn_site import first_frame_outside
from .._core.thread import VirtualThread
from ._sources import lines_of

__all__ = ["Place", "add_source", "frame_of", "place_of", "positions_from", "stack_from"]

# {"file": str, "line": int, "function": str}, and later "source": str
Place = dict[str, Any]


def frame_of(thread: VirtualThread, scheduler: Scheduler) -> FrameType | None:
    """Return the innermost frame of `thread`, from any OS thread.

    None before the first run, for a thread that waits in compiled code without a Python frame, and, on another OS
    thread, while the carrier switches.
    """
    if get_ident() == scheduler.ident:
        return thread._frame()
    if _is_on_its_os_thread(thread, scheduler):
        frame = frames_of_os_threads().get(scheduler.ident)
        # Its carrier may have switched meanwhile: then the frame belongs to another thread.
        if _is_on_its_os_thread(thread, scheduler):
            return frame
    greenlet = thread._greenlet
    return None if greenlet is None else greenlet.gr_frame


def _is_on_its_os_thread(thread: VirtualThread, scheduler: Scheduler) -> bool:
    """Return whether the carrier's OS thread uses the stack of `thread`, which runs or was the last to park."""
    greenlet = thread._greenlet
    return scheduler.running is thread or (greenlet is not None and scheduler.idle_on is greenlet)


def place_of(frame: FrameType) -> Place:
    """Return the position of `frame` as data."""
    return {"file": frame.f_code.co_filename, "line": frame.f_lineno or 0, "function": frame.f_code.co_qualname}


def stack_from(frame: FrameType | None) -> list[Place]:
    """Return the calls from the outermost to `frame`, without those of this package."""
    places = []
    frame = first_frame_outside(frame)
    while frame is not None:
        places.append(place_of(frame))
        frame = first_frame_outside(frame.f_back)
    return places[::-1]


def positions_from(frame: FrameType | None) -> tuple[tuple[CodeType, int], ...]:
    """Return what determines `stack_from(frame)`."""
    positions = []
    frame = first_frame_outside(frame)
    while frame is not None:
        positions.append((frame.f_code, frame.f_lineno or 0))
        frame = first_frame_outside(frame.f_back)
    return tuple(positions)


def add_source(places: list[Place]) -> None:
    """Add to each place the text of its line. A separate step, because it reads files."""
    for place in places:
        lines = lines_of(place["file"])
        place["source"] = lines[place["line"] - 1].strip() if 0 < place["line"] <= len(lines) else ""
