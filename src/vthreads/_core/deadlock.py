"""Describe a deadlock: the parked threads, and what each waits in."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from types import FrameType
from typing import Any

from .cancel import CancelNode
from .engine import Fiber, Scheduler, State
from .os_thread_kinds import frames_of_os_threads
from .placement import schedulers_beside
from .spawn_site import PACKAGE, first_frame_outside, is_own_frame
from .thread import VirtualThread
from .wait_queue import WaitQueue

__all__ = [
    "describe_deadlock",
    "describe_place",
    "describe_wait",
    "shown",
    "threads_below",
    "threads_of_run",
    "threads_on",
]


def threads_below(scheduler: Scheduler) -> Iterator[VirtualThread]:
    """Yield every virtual thread in the tree of `scheduler` that has not ended, in order of depth.

    The tree contains the members of groups that were entered on its carrier, also those that run on other carriers.
    """
    groups = scheduler.background, scheduler.threads, scheduler.daemons
    nodes: deque[CancelNode] = deque([scheduler.root, *(group._scope for group in groups)])
    while nodes:
        node = nodes.popleft()
        if isinstance(node, VirtualThread):
            yield node
        nodes.extend(node._nodes_below())


def threads_of_run(scheduler: Scheduler) -> Iterator[VirtualThread]:
    """Yield every virtual thread of the run to which `scheduler` belongs."""
    for one in schedulers_beside(scheduler):
        yield from threads_below(one)


def threads_on(scheduler: Scheduler) -> Iterator[VirtualThread]:
    """Yield every virtual thread that runs on the carrier of `scheduler`."""
    return (thread for thread in threads_of_run(scheduler) if thread._scheduler is scheduler)


def describe_deadlock(parked: list[VirtualThread]) -> str:
    """Return the message of a `DeadlockError`."""
    lines = ["every virtual thread is parked, and no timer, descriptor, signal handler or OS thread can unpark one:"]
    lines += [f"  {thread.name!r} waits in {describe_wait(thread)}" for thread in parked[:20]]
    if len(parked) > 20:
        lines.append(f"  and {len(parked) - 20} more")
    return "\n".join(lines)


# Modules with frames on the stack of every parked thread.
HOW_IT_WAITS = {part.__module__ for part in (Fiber, Scheduler, State, VirtualThread, WaitQueue)}
# The check runs on the stack of the thread that parked last. By name, because that module imports this one.
HOW_IT_WAITS.add(f"{PACKAGE}._core.carrier")
# Its functions wrap calls of the standard library. On the reference engine they have frames outside those of the call,
# which have neither its name nor its object.
HOW_IT_WAITS.add(f"{PACKAGE}._calls.guards")
# Modules of the standard library that wait through this package, and that show better what they wait for.
STANDARD = {"threading", "queue", "concurrent.futures._base", "concurrent.futures.thread", "selectors", "socket", "ssl"}


# Modules whose types have a repr that takes no lock and runs no user code, and plain types.
SHOWN_BY_REPR = {PACKAGE, "_thread", "socket", "ssl"}
PLAIN = (int, float, complex, bool, str, bytes, type(None))
# Types of the standard library whose repr only reads attributes. Subclasses may have another repr.
READS_ALONE = (threading.Event, threading.Semaphore, threading.BoundedSemaphore, threading.Barrier)


def shown(value: Any) -> str:
    """Describe `value`: by its repr if that is known to be harmless, else by its type and address.

    At a checkpoint an object may be half initialized, and its repr may fail, wait for a lock, or be a checkpoint.
    """
    cls = type(value)
    if cls in PLAIN or cls.__module__.partition(".")[0] in SHOWN_BY_REPR:
        return repr(value)
    if cls in READS_ALONE:
        try:
            return repr(value)
        except AttributeError:
            # Half initialized: an attribute is missing.
            pass
    if isinstance(value, threading.Thread):
        # Its repr calls `is_alive`, which takes a lock in some versions and can be overridden. The name is a str.
        name = object.__getattribute__(value, "__dict__").get("_name")
        return f"<{cls.__qualname__} {name!r} at {id(value):#x}>"
    return f"<{cls.__module__}.{cls.__qualname__} object at {id(value):#x}>"


def describe_wait(thread: VirtualThread) -> str:
    """Describe what a parked thread waits in: the outermost waiting call, its object, and the line of the program."""
    frame = _frame_of(thread)
    return _call_under_way(thread, frame, _frame_of_program(frame)) + describe_place(frame)


def _frame_of(thread: VirtualThread) -> FrameType | None:
    scheduler = thread._scheduler
    if thread._greenlet is not None and thread._greenlet is scheduler.idle_on and not thread._is_here():
        # Another carrier waits on the stack of this thread, so its frames are among those of the OS threads.
        return frames_of_os_threads().get(scheduler.ident)
    return thread._frame()


def describe_place(frame: FrameType | None) -> str:
    """Return ", called at" and the line of the program that waits in `frame`; an empty text if there is none."""
    outside = _frame_of_program(frame)
    if outside is None:
        return ""
    return f", called at {outside.f_code.co_filename}:{outside.f_lineno} in {outside.f_code.co_name}"


def _frame_of_program(frame: FrameType | None) -> FrameType | None:
    outside = first_frame_outside(frame)
    while outside is not None and outside.f_globals.get("__name__") in STANDARD:
        outside = first_frame_outside(outside.f_back)
    return outside


def _call_under_way(thread: VirtualThread, frame: FrameType | None, outside: FrameType | None) -> str:
    call = None
    while frame is not None and frame is not outside:
        # Find the outermost call that shows what the thread waits for, and not how.
        if frame.f_globals["__name__"] not in HOW_IT_WAITS:
            call = frame
        frame = frame.f_back
    if thread._waits_for is not None and (call is None or is_own_frame(call)):
        # A compiled call has no frame, and stores its name and object in the thread.
        name, waited_for = thread._waits_for
        return f"{name}()" if waited_for is None else f"{name}() of {shown(waited_for)}"
    if call is None:
        # Before its first run a thread can only wait for a permit of its group; later it called `park` itself.
        return "the queue of its group" if outside is None else "park()"
    what = f"{call.f_code.co_qualname}()"
    return f"{what} of {shown(call.f_locals['self'])}" if "self" in call.f_locals else what
