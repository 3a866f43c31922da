"""What a parked thread waits for, as data, found when somebody asks and not noted while the program runs.

The frames of this package, and of the modules of the standard library that wait by it, tell the object; the tables of
the scheduler tell descriptors and timers. A compiled call has no frame and leaves its name and object behind.
"""

from __future__ import annotations

import concurrent.futures
import os
import queue
import socket
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from .._core.deadlock import HOW_IT_WAITS
from .._core.engine import READ, Descriptor, Scheduler
from .._core.future import Future
from .._core.group import ThreadGroup
from .._core.semaphore import Semaphore
from .._core.spawn_site import PACKAGE, is_own_frame
from .._core.thread import VirtualThread
from ..barriers import Barrier
from ..channels import Channel
from ..conditions import Condition
from ..events import Event
from ..locks import Lock, RLock
from ..mutex import Mutex, RwLock
from ..os_calls import Call, name_of
from ..queues import Queue, SimpleQueue
from .places import place_of

__all__ = ["LOCKS", "Waits", "shown"]

Data = dict[str, Any]

LOCKS = (Lock, RLock, Mutex, RwLock)
CONDITIONS = (Condition, threading.Condition)
# What is waited for, by the types that say so. The first that fits counts.
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
    ("group", (ThreadGroup,)),
    ("thread", (threading.Thread,)),
)
# Of some kinds only these functions wait: a condition is entered as well, and a group spawned into.
WAITED_FOR_IN = {
    "condition": ("wait", "wait_for"),
    "group": ("_wait_for_members", "join", "end"),
    "thread": ("join",),
}
# Functions that wait for the first of several, and the variable that has them.
SEVERAL = {
    ("vthreads.completion", "wait"): "pending",
    ("vthreads.completion", "_as_completed"): "pending",
    ("vthreads.channels", "receive_any"): "channels",
}
# So many of them are shown.
MOST_SHOWN = 3
# Modules of the standard library that wait by the calls of this package, and say better what for.
STANDARD = {"threading", "queue", "concurrent.futures._base", "concurrent.futures.thread", "selectors", "socket", "ssl"}
LOOKING_ON = __name__.rpartition(".")[0]
# Modules that say how it is waited, and not what for.
HOW = (LOOKING_ON, *HOW_IT_WAITS)
# Types whose repr is known to take no lock and to run no code of the user's.
SHOWN_BY_REPR = {PACKAGE, "_thread", "socket", "ssl"}


def shown(value: Any) -> str:
    """`value` in words, by its repr if that is known to be harmless; a tuple is of several that are waited for."""
    cls = type(value)
    if cls is tuple:
        more = [f"{len(value) - MOST_SHOWN} more"] if len(value) > MOST_SHOWN else []
        return " or ".join([*map(shown, value[:MOST_SHOWN]), *more])
    if cls.__module__.partition(".")[0] in SHOWN_BY_REPR:
        text = repr(value)
        # Locks look alike, and it matters which one it is.
        return f"{text[:-1]} at {id(value):#x}>" if isinstance(value, LOCKS) and " at 0x" not in text else text
    return f"<{cls.__module__}.{cls.__qualname__} object at {id(value):#x}>"


class Waits:
    """What the threads of one carrier wait for: its tables, read once."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._now = scheduler.clock.now()
        # By id: some owner of a timer need not be hashable.
        self._due = {id(owner): when for when, owner in scheduler.timers}
        self._descriptors: dict[int, list[tuple[Descriptor, int]]] = {}
        for entry, direction, waiter in scheduler.descriptors.waits():
            self._descriptors.setdefault(id(waiter), []).append((entry, direction))

    def of(self, thread: VirtualThread, frame: FrameType | None) -> tuple[Data, Any]:
        """What `thread`, parked at `frame`, waits for, and the object itself if there is one."""
        if frame is None and thread.waits_for is None:
            # Before its first run a thread can only wait for its turn.
            return {"kind": "permit", "call": None, "object": shown(thread.group), "at": None, "due_in": None}, None
        call, waited_for, outside = _call_of(thread, frame)
        due = self._due.get(id(thread))
        wait: Data = {
            "kind": self._kind(thread, waited_for, due),
            "call": call,
            "object": None if waited_for is None else shown(waited_for),
            "at": None if outside is None else place_of(outside),
            "due_in": None if due is None else due - self._now,
        }
        if wait["kind"] == "descriptor":
            wait["descriptors"] = self._descriptors_of(thread, call, waited_for)
        detail = DETAILS.get(wait["kind"])
        return wait if detail is None else wait | detail(waited_for), waited_for

    def _kind(self, thread: VirtualThread, waited_for: Any, due: float | None) -> str:
        if id(thread) in self._descriptors or isinstance(waited_for, socket.socket):
            return "descriptor"
        one = waited_for[0] if type(waited_for) is tuple else waited_for
        return kind_of(one) or ("park" if due is None else "timer")

    def _descriptors_of(self, thread: VirtualThread, call: str | None, waited_for: Any) -> list[Data]:
        listed = self._descriptors.get(id(thread))
        if listed is None:
            direction = "write" if call is not None and ("send" in call or "connect" in call) else "read"
            return [{"fd": waited_for.fileno(), "until": direction, **_file(waited_for.fileno(), waited_for)}]
        return [
            {
                "fd": entry.fd,
                "until": "read" if direction & READ else "write",
                **_file(entry.fd, entry.owner and entry.owner()),
            }
            for entry, direction in listed
        ]


def kind_of(value: Any) -> str | None:
    """The kind of thing that `value` is to who waits for it; None if nobody waits for its like."""
    return next((kind for kind, types in KINDS if isinstance(value, types)), None)


# --- what the frames tell


def _call_of(thread: VirtualThread, frame: FrameType | None) -> tuple[str | None, Any, FrameType | None]:
    """The call that waits, the object that it waits for, and the frame that made it."""
    call: str | None = None
    waited_for: Any = None
    inner = frame
    while inner is not None and (is_own_frame(inner) or inner.f_globals.get("__name__") in STANDARD):
        module = inner.f_globals.get("__name__", "")
        # This package stands on the stack of whoever polls while its carrier is asked.
        found = None if module.startswith(LOOKING_ON) else _waited_for(thread, inner)
        # The outermost says it best: a queue is waited for by its condition, which is by a lock.
        if found is not None or (waited_for is None and not module.startswith(HOW)):
            call, waited_for = inner.f_code.co_qualname, found
        inner = inner.f_back
    if thread.waits_for is not None and waited_for is None:
        call, waited_for = thread.waits_for
    return call, waited_for, inner


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


# --- what is known of descriptors


def _file(fd: int, owner: Any) -> Data:
    """What file `fd` means: for a socket its addresses, otherwise what the system calls it."""
    if isinstance(owner, socket.socket):
        return _addresses(owner)
    # With a default timeout in force, looking at a descriptor as a socket would make it non-blocking.
    if socket.getdefaulttimeout() is None:
        try:
            borrowed = socket.socket.__mro__[1](fileno=fd)
        except OSError:
            # It is no socket.
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


# --- what is known of the others


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
