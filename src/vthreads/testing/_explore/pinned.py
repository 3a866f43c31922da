"""Describe a run that passes no point any more: where it is, and what to do."""

from __future__ import annotations

import traceback
from itertools import dropwhile
from types import FrameType

from ..._core.spawn_site import is_own_frame
from ..._core.thread import VirtualThread
from .operations import Operations

__all__ = ["describe_pin"]

ADVICE = """\
If it is a loop, pass points="lines" or "opcodes", which stop it. If it is a lock, it blocks the OS thread: create it in
the function, or keep it in a module, a class or an object, where it is replaced by one that parks. If it is a call
that takes long, raise max_seconds."""


def describe_pin(thread: VirtualThread | None, frame: FrameType | None, operations: Operations) -> str:
    """Describe that `thread` is at `frame`, with the part of the stack that belongs to the program."""
    who = "a call on another OS thread is waited for" if thread is None else f"'{thread.name}' is at"
    stack = [] if thread is None else _stack(frame, operations)
    return "\n".join([f"the run neither ends nor passes a point: {who}", *stack, ADVICE])


def _stack(frame: FrameType | None, operations: Operations) -> list[str]:
    frames = []
    while frame is not None and not is_own_frame(frame):
        frames.append((frame, frame.f_lineno))
        frame = frame.f_back
    # Leave out the callers of the program: an executor, or the standard library's threads.
    program = list(dropwhile(lambda pair: not operations.is_program(pair[0]), reversed(frames)))
    return [line.rstrip() for line in traceback.StackSummary.extract(program or reversed(frames)).format()]
