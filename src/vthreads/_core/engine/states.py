"""What the engines share: their limits, the states of a fiber, the answers of `park`, and who is a carrier."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

__all__ = [
    "ABORTED",
    "LONGEST_WAIT",
    "NOTHING",
    "POOL_SIZE",
    "SHRINK_BY",
    "SHRINK_EVERY",
    "SHRINK_PAUSE",
    "SLICE",
    "STUCK_AGAIN_AFTER",
    "SWITCHES_PER_POLL",
    "TIMED_OUT",
    "State",
    "call_in_a_frame",
    "carriers",
    "landed",
]

# Scheduler by OS thread ident.
carriers: dict[int, Any] = {}

# Timers and I/O are looked at after this many switches or seconds, whichever is first, so that neither starves.
SWITCHES_PER_POLL = 64
SLICE = 0.001
# The longest wait that a poller is asked for: more milliseconds than fit an int would be refused.
LONGEST_WAIT = 3_600.0
# Seconds between the two looks that a deadlock takes.
STUCK_AGAIN_AFTER = 0.02
# Finished greenlets that are kept in any case; one holds about 6 KiB. More are kept as long as somebody wants them:
# what nobody took for so many seconds is ended, a number at a time, with pauses in between.
POOL_SIZE = 1_000
SHRINK_EVERY = 1.0
SHRINK_BY = 500
SHRINK_PAUSE = 0.01


class State(Enum):
    """Where a fiber is in its life.

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

    What looks at the callers of a checkpoint finds one even if a virtual thread runs a function that is compiled.
    """
    return function(*arguments, **(keywords or {}))


def landed() -> None:
    """Be called after a switch, for a compiled engine that is traced.

    Tracers that keep their books by greenlet (coverage) look which one runs when a Python function is called or
    returns, and would take the lines that follow a compiled call for those of another.
    """
