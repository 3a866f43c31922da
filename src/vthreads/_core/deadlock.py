"""Telling of a standstill: who is there, and what each waits in."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from types import FrameType

from .cancel import CancelNode
from .engine import Fiber, Scheduler, State
from .spawn_site import first_frame_outside
from .thread import VirtualThread
from .wait_queue import WaitQueue

__all__ = ["describe_deadlock", "describe_wait", "threads_below"]


def threads_below(scheduler: Scheduler) -> Iterator[VirtualThread]:
    """Every virtual thread of `scheduler` that has not ended, in order of depth."""
    groups = scheduler.background, scheduler.threads, scheduler.daemons
    nodes: deque[CancelNode] = deque([scheduler.root, *(group._scope for group in groups)])
    while nodes:
        node = nodes.popleft()
        if isinstance(node, VirtualThread):
            yield node
        nodes.extend(list(node._children or ()))


def describe_deadlock(parked: list[VirtualThread]) -> str:
    """The message of a `DeadlockError`."""
    lines = ["every virtual thread is parked, and no timer, descriptor, signal handler or OS thread can unpark one:"]
    lines += [f"  {thread.name!r} waits in {describe_wait(thread)}" for thread in parked[:20]]
    if len(parked) > 20:
        lines.append(f"  and {len(parked) - 20} more")
    return "\n".join(lines)


# Modules whose functions stand on the stack of every parked thread.
HOW_IT_WAITS = {Fiber.__module__, State.__module__, VirtualThread.__module__, WaitQueue.__module__}


def describe_wait(thread: VirtualThread) -> str:
    """What a parked thread waits in: the call of this package with its object, and the line that made it."""
    frame = thread.frame()
    outside = first_frame_outside(frame)
    what = _call_under_way(thread, frame, outside)
    if outside is None:
        return what
    return f"{what}, called at {outside.f_code.co_filename}:{outside.f_lineno} in {outside.f_code.co_name}"


def _call_under_way(thread: VirtualThread, frame: FrameType | None, outside: FrameType | None) -> str:
    if thread.waits_for is not None:
        # A compiled call, which has no frame.
        name, waited_for = thread.waits_for
        return f"{name}()" if waited_for is None else f"{name}() of {waited_for!r}"
    call = None
    while frame is not None and frame is not outside:
        # The outermost of our calls that says what is waited for, and not how.
        if frame.f_globals["__name__"] not in HOW_IT_WAITS:
            call = frame
        frame = frame.f_back
    if call is None:
        # Before its first run a thread can only wait for its turn; later it parked by itself.
        return "the queue of its group" if outside is None else "park()"
    what = f"{call.f_code.co_qualname}()"
    return f"{what} of {call.f_locals['self']!r}" if "self" in call.f_locals else what
