"""Shared parts of the engines: limits, states of a fiber, results of `park`, and the registry of carriers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from enum import Enum
from typing import Any, NoReturn

from ..replaced import latest

__all__ = [
    "ABORTED",
    "DEADLOCK_AGAIN_AFTER",
    "FEWEST_ENDED",
    "LONGEST_WAIT",
    "NOTHING",
    "POOL_SIZE",
    "ROOM",
    "SHRINK_BY",
    "SHRINK_EVERY",
    "SHRINK_PAUSE",
    "SLICE",
    "SWITCHES_PER_POLL",
    "TIMED_OUT",
    "State",
    "call_in_a_frame",
    "carriers",
    "contended",
    "landed",
    "refuse_to_wait",
]

# Schedulers by ident of their OS thread.
carriers: dict[int, Any] = {}

# Weak references to locks for which a virtual thread began to wait without a deadline since the last check. While there
# are any, carriers call `Scheduler.when_contended` at intervals, to detect circles of locks.
contended: list[Any] = []

# Timers and I/O are checked after this many switches or seconds, whichever comes first, so that neither starves.
SWITCHES_PER_POLL = 64
SLICE = 0.001
# The longest wait of a poller: more milliseconds than an int can hold would be refused.
LONGEST_WAIT = 3_600.0
# Seconds between the two checks before a deadlock is reported.
DEADLOCK_AGAIN_AFTER = 0.02
# Number of finished greenlets that are always kept; each holds about 6 KiB. More are kept while they are in use: those
# that were not needed for SHRINK_EVERY seconds are ended, SHRINK_BY at a time, with pauses in between.
POOL_SIZE = 1_000
SHRINK_EVERY = 1.0
SHRINK_BY = 500
SHRINK_PAUSE = 0.01
# Number of references to ended futures from which on a group drops dead ones.
FEWEST_ENDED = 64
# Calls that a wait needs below its caller. Without them it would end half begun, with a timer or a place in a queue.
ROOM = 100


class State(Enum):
    """The states of a fiber.

    NEW ──start──> RUNNING ──park──> PARKED
     │             ^     │             │
     └─enqueue─> READY   └─end─> ENDED │ unpark, deadline, abort
                   ^                   │
                   └───────────────────┘
    """

    NEW = "new"
    READY = "ready"
    RUNNING = "running"
    PARKED = "parked"
    ENDED = "ended"


class Signal:
    """A named value that `park` returns."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


TIMED_OUT = Signal("TIMED_OUT")
ABORTED = Signal("ABORTED")
NOTHING = Signal("NOTHING")


def call_in_a_frame(function: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any] | None) -> Any:
    """Call `function` with a Python frame around it, for a compiled engine.

    Code that reads the callers of a checkpoint then finds a frame even if a virtual thread runs a compiled function.
    """
    function = latest(function)
    return function(*arguments, **(keywords or {}))


def landed() -> None:
    """Do nothing; a traced engine calls it after a switch.

    Tracers that keep data per greenlet (coverage) detect the current greenlet when a Python function is called or
    returns. Without this call they would count the following lines for another greenlet.
    """


def refuse_to_wait() -> NoReturn:
    """Raise for a wait that could run out of frames, before it begins."""
    raise RecursionError(
        f"a wait needs {ROOM} more calls below the recursion limit of {sys.getrecursionlimit()}; "
        "wait in fewer nested calls, or raise the limit by sys.setrecursionlimit()"
    )
