"""The table of delivery: what a checkpoint does, by what is pending in the thread and by the condition of the thread.

`delivery` reads this table at each checkpoint of a thread in which something is pending. A test has a program for each
row, and `docs/explanation/cancellation.md` prints the table for users. This module does not depend on how a
state or a condition is found.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = ["ACTIONS", "RAISING", "WITH_CLEANUP", "Action", "Condition", "Pending"]

# The enums are strings, because strings are hashed in C, and the table is read whenever an exception is raised.


class Pending(StrEnum):
    """The pending state of a thread. A cancelled scope counts only while no shield hides it from the thread.

    A polite interrupt is the first Ctrl-C. Every other interrupt is plain. A thread with both kinds has a plain one.
    """

    NOTHING = "nothing"
    POLITE = "first Ctrl-C"
    PLAIN = "interrupt"
    CANCELLED = "cancelled"
    CANCELLED_AND_INTERRUPTED = "cancelled, and an interrupt or Ctrl-C"
    CLEANUP = "cancelled, in cleanup"
    CLEANUP_AND_POLITE = "cancelled, in cleanup, and first Ctrl-C"
    CLEANUP_AND_PLAIN = "cancelled, in cleanup, and an interrupt"


class Condition(StrEnum):
    """The condition of a thread. If several hold, the last one in this order counts."""

    FREE = "in plain code"
    SHIELDED = "in a shield"
    HURRIED = "after the second Ctrl-C"
    NOT_RUN = "before its first run"
    DEFERRED = "in a call that gives back"


class Action(StrEnum):
    """The action of a checkpoint."""

    NOTHING = "go on"
    CANCEL = "raise Cancelled"
    OLDEST = "raise the interrupt"
    # Skip an older polite interrupt, which stays pending.
    PLAIN = "raise the plain interrupt"
    WAIT = "go on until the grace ends"
    # A state that does not occur in this condition.
    NEVER = "–"


# The actions that raise. A wait is withdrawn for these only.
RAISING = frozenset({Action.CANCEL, Action.OLDEST, Action.PLAIN})

_ON, _CANCEL, _OLDEST, _PLAIN, _WAIT, _NEVER = Action

# Cancellation comes before interrupts. Shields and cleanup hold back the first Ctrl-C, and no other interrupt. During
# cleanup, cancellation waits for the end of the grace. The second Ctrl-C ends shields and cleanup. A thread that has
# not run yet is not at a checkpoint: if cancelled, it never runs; an interrupt waits for its first checkpoint. Ctrl-C
# goes to the root, which has always run.
_ROWS = {
    #                                    FREE     SHIELDED HURRIED  NOT_RUN  DEFERRED
    Pending.NOTHING:                   (_ON,     _ON,     _ON,     _ON,     _ON),
    Pending.POLITE:                    (_OLDEST, _ON,     _OLDEST, _NEVER,  _ON),
    Pending.PLAIN:                     (_OLDEST, _PLAIN,  _OLDEST, _ON,     _ON),
    Pending.CANCELLED:                 (_CANCEL, _CANCEL, _CANCEL, _CANCEL, _ON),
    Pending.CANCELLED_AND_INTERRUPTED: (_CANCEL, _CANCEL, _CANCEL, _CANCEL, _ON),
    Pending.CLEANUP:                   (_WAIT,   _WAIT,   _CANCEL, _NEVER,  _ON),
    Pending.CLEANUP_AND_POLITE:        (_WAIT,   _WAIT,   _CANCEL, _NEVER,  _ON),
    Pending.CLEANUP_AND_PLAIN:         (_PLAIN,  _PLAIN,  _CANCEL, _NEVER,  _ON),
}  # fmt: skip

ACTIONS = {pending: dict(zip(Condition, row, strict=True)) for pending, row in _ROWS.items()}

# The state of a thread that is cancelled and in its cleanup, by its pending interrupts.
WITH_CLEANUP = {
    Pending.NOTHING: Pending.CLEANUP,
    Pending.POLITE: Pending.CLEANUP_AND_POLITE,
    Pending.PLAIN: Pending.CLEANUP_AND_PLAIN,
}
