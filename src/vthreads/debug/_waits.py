"""Describe as data what a parked thread waits for. Derived on request, so that a running program need not record it.

The frames of this package, and of the modules of the standard library that wait through it, contain the object and the
descriptors. A compiled call has no frame and stores its name and object in the thread.
"""

from __future__ import annotations

import concurrent.futures
import os
import queue
import socket
import threading
from collections.abc import Callable
from math import inf
from types import CodeType, FrameType
from typing import Any

from .._calls.net import readiness
from .._core.deadlock import HOW_IT_WAITS, STANDARD
from .._core.deadlock import shown as shown_one
from .._core.engine import READ, Descriptor, Scheduler
from .._core.future import Future
from .._core.members import Members
from .._core.semaphore import Semaphore
from .._core.spawn_site import is_own_frame
from .._core.thread import VirtualThread
from .._os_threads.calls import Call, name_of
from .._sync.barriers import Barrier
from .._sync.channels import Channel
from .._sync.conditions import Condition
from .._sync.events import Event
from .._sync.locks import Lock, RLock
from .._sync.mutex import Mutex, RwLock
from .._sync.queues import Queue, SimpleQueue
from ._stacks import Place, place_of

__all__ = ["LOCKS", "Waits", "shown"]

Data = dict[str, Any]

LOCKS = (Lock, RLock, Mutex, RwLock)
CONDITIONS = (Condition, threading.Condition)
# Kinds of waits by the type of the object. The first matching row counts.
KINDS: tuple[tuple[str, tuple[type, ...]], ...] = (
    ("condition", CONDITIONS),
    ("lock", LOCKS),
    ("event", (Event, threading.Event)),
    ("semaphore", (Semaphore, threading.Semaphore)),
    ("barrier", (Barrier, threading.Barrier)),
    ("queue", (Queue, SimpleQueue, queue.Queue)),
    ("channel", (Channel,)),
    ("offload", (Call,)),
    ("future", (concurrent.futures.Future,)),
    ("group", (Members,)),
    ("thread", (threading.Thread,)),
)
# Kinds whose objects are waited for in these functions only: a condition is also entered, a group also spawned into.
WAITED_FOR_IN = {
    "condition": ("wait", "wait_for"),
    "group": ("_wait_for_members", "join", "end"),
    "thread": ("join",),
}
# Functions that wait for the first of several objects, and the variable that contains them.
SEVERAL = {
    ("vthreads._completion", "wait"): "pending",
    ("vthreads._completion", "_as_completed"): "pending",
    ("vthreads._sync.channels", "receive_any"): "channels",
}
# How many of these to show.
MOST_SHOWN = 3
# The function whose variable `enlisted` contains the descriptors that a thread waits for.
PARKS_FOR_DESCRIPTORS = readiness._park.__code__
LOOKING_ON = __name__.rpartition(".")[0]
# Modules that show how a thread waits, but not for what.
HOW = (LOOKING_ON, *HOW_IT_WAITS)


def shown(value: Any) -> str:
    """Return `value` in words; a tuple means several objects that are waited for."""
    if type(value) is tuple:
        more = [f"{len(value) - MOST_SHOWN} more"] if len(value) > MOST_SHOWN else []
        return " or ".join([*map(shown, value[:MOST_SHOWN]), *more])
    text = shown_one(value)
    # Locks look alike, so add the address.
    return f"{text[:-1]} at {id(value):#x}>" if isinstance(value, LOCKS) and " at 0x" not in text else text


class Waits:
    """Describes the waits of the threads of one carrier.

    Each thread is examined separately, in a time that does not depend on the number of other threads: reading a table
    of all timers or descriptors would take the carrier milliseconds.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        # Threads at the same place share its description.
        self._places: dict[tuple[CodeType, int], Place] = {}

    def of(self, thread: VirtualThread, frame: FrameType | None) -> tuple[Data, Any]:
        """Return what `thread`, parked at `frame`, waits for, and the object itself if there is one."""
        if frame is None and thread._waits_for is None:
            # Before its first run a thread can only wait for a permit of its group.
            return {"kind": "permit", "call": None, "object": shown(thread.group), "at": None, "due_in": None}, None
        call, waited_for, outside, descriptors = self._call_of(thread, frame)
        due = None if thread._parked_until == inf else thread._parked_until - self._scheduler.clock.now()
        wait: Data = {
            "kind": "descriptor" if descriptors else _kind(waited_for, due),
            "call": call,
            "object": None if waited_for is None else shown(waited_for),
            "at": None if outside is None else self._place(outside),
            "due_in": due,
        }
        if descriptors:
            wait["descriptors"] = [
                {"fd": entry.fd, "until": "read" if direction & READ else "write", **_file(entry)}
                for entry, direction in descriptors
            ]
        detail = DETAILS.get(wait["kind"])
        return wait if detail is None else wait | detail(waited_for), waited_for

    def _place(self, frame: FrameType) -> Place:
        key = frame.f_code, frame.f_lineno or 0
        if key not in self._places:
            self._places[key] = place_of(frame)
        return self._places[key]

    def _call_of(
        self, thread: VirtualThread, frame: FrameType | None
    ) -> tuple[str | None, Any, FrameType | None, list[tuple[Descriptor, int]]]:
        """Return the waiting call, its object, the frame that called it, and the descriptors that it waits for."""
        call: str | None = None
        waited_for: Any = None
        descriptors: list[tuple[Descriptor, int]] = []
        inner = frame
        while inner is not None and (is_own_frame(inner) or inner.f_globals.get("__name__") in STANDARD):
            module = inner.f_globals.get("__name__", "")
            if inner.f_code is PARKS_FOR_DESCRIPTORS:
                descriptors = list(inner.f_locals["enlisted"])
            # If the carrier is asked while a thread polls, this package is on the stack of that thread: skip it.
            found = None if module.startswith(LOOKING_ON) else _waited_for(thread, inner)
            # The outermost object is the best answer: a queue waits by a condition, which waits by a lock.
            if found is not None or (waited_for is None and not module.startswith(HOW)):
                call, waited_for = inner.f_code.co_qualname, found
            inner = inner.f_back
        if thread._waits_for is not None and waited_for is None:
            call, waited_for = thread._waits_for
            # A call of `os` has only the number.
            fd = waited_for.fileno() if isinstance(waited_for, socket.socket) else waited_for
            entry = self._scheduler.descriptors.get(fd) if type(fd) is int else None
            descriptors = [] if entry is None else [(entry, one) for one in entry.directions_of(thread)]
            waited_for = None if type(waited_for) is int else waited_for
        return call, waited_for, inner, descriptors


def _kind(waited_for: Any, due: float | None) -> str:
    one = waited_for[0] if type(waited_for) is tuple else waited_for
    return kind_of(one) or ("park" if due is None else "timer")


def kind_of(value: Any) -> str | None:
    """Return the kind of wait for `value`; None if threads do not wait for such objects."""
    return next((kind for kind, types in KINDS if isinstance(value, types)), None)


# --- from frames


def _waited_for(thread: VirtualThread, frame: FrameType) -> Any:
    function = frame.f_code.co_name
    several = SEVERAL.get((frame.f_globals.get("__name__", ""), function))
    if several is not None:
        values = tuple(frame.f_locals.get(several, ()))
        return values if len(values) > 1 else next(iter(values), None)
    for value in frame.f_locals.values():
        kind = kind_of(value)
        if kind is not None and value is not thread and function in WAITED_FOR_IN.get(kind, (function,)):
            return value
    return None


# --- descriptors


def _file(entry: Descriptor) -> Data:
    """Return which file `entry` means: for a socket its addresses, otherwise the system's name for it."""
    fd, owner = entry.fd, entry.owner and entry.owner()
    if isinstance(owner, socket.socket):
        return _addresses(owner)
    # If a default timeout is set, creating a socket object for the descriptor would make it non-blocking.
    if socket.getdefaulttimeout() is None:
        try:
            borrowed = socket.socket.__mro__[1](fileno=fd)
        except OSError:
            # Not a socket.
            pass
        else:
            try:
                return _addresses(borrowed)
            finally:
                borrowed.detach()
    try:
        return {"file": os.readlink(f"/proc/self/fd/{fd}")}
    except OSError:
        # It was closed meanwhile, or this system has no such directory.
        return {"file": None}


def _addresses(sock: Any) -> Data:
    return {"file": "socket", "local": _address(sock.getsockname), "peer": _address(sock.getpeername)}


def _address(ask: Callable[[], Any]) -> str | None:
    try:
        address = ask()
    except OSError:
        # Not bound, not connected, or closed.
        return None
    if isinstance(address, tuple) and len(address) >= 2:
        host, port = address[:2]
        return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
    return os.fsdecode(address) if isinstance(address, bytes) else str(address) or None


# --- other objects


def _of_future(future: Any) -> Data:
    return {"thread": _named(future.thread)} if isinstance(future, Future) else {}


def _named(thread: threading.Thread) -> Data:
    return {"ident": thread.ident, "name": thread.name}


DETAILS: dict[str, Callable[[Any], Data]] = {
    "future": _of_future,
    "thread": lambda thread: {"thread": _named(thread)},
    "group": lambda group: {"members": len(group)},
    "offload": lambda call: {"function": name_of(call.function)},
}
