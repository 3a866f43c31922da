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
    "SLICE",
    "STUCK_AGAIN_AFTER",
    "SWITCHES_PER_POLL",
    "TIMED_OUT",
    "State",
    "call_in_a_frame",
    "carriers",
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
# Finished greenlets kept for reuse; one holds about 6 KiB.
POOL_SIZE = 1_000


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
