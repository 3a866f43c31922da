"""A schedule: the decisions at which another thread runs than the default one.

By default the running thread continues; when it waits or ends, the thread that has been ready longest follows. A
decision is a point at which at least two threads could run. Decisions and threads are numbered from 0 in the order in
which they occur; the root is thread 0. So a schedule is a few pairs of numbers. It does not depend on the run in which
it was found, and is still a schedule if a pair is left out, which makes shrinking possible.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

__all__ = ["Points", "Schedule", "Switch"]

# Where a running thread may be stopped.
Points = Literal["checkpoints", "lines", "opcodes"]

# The number of a decision, and the number of the thread that runs from there on.
Switch = tuple[int, int]

WRITTEN = re.compile(r"(\w+):((?:\d+>\d+(?:,|$))*)")


@dataclass(frozen=True)
class Schedule:
    """Which thread runs when, as differences from a run without preemption.

    `str()` writes it on one line, `parse` reads that, and `replay` accepts both.

    Attributes:
        points: where threads were stopped: "checkpoints", "lines" or "opcodes".
        switches: pairs of decision and thread, in ascending order of decisions. A pair whose thread cannot run at its
            decision has no effect.
        wraps: whether such a pair instead selects a thread that can run, by number modulo their count; for schedules
            that are drawn without knowledge of the threads. `str()` does not write it.
    """

    points: Points
    switches: tuple[Switch, ...] = ()
    wraps: bool = False

    def __post_init__(self) -> None:
        if self.points not in get_args(Points):
            raise ValueError(f"points={self.points!r}: pass one of {', '.join(get_args(Points))}")

    def __str__(self) -> str:
        return f"{self.points}:" + ",".join(f"{decision}>{thread}" for decision, thread in self.switches)

    @classmethod
    def parse(cls, text: str) -> Schedule:
        """Read the output of `str()`. Not a checkpoint; thread-safe.

        Raises:
            ValueError: the text has another form.
        """
        match = WRITTEN.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"{text!r} is not a schedule; pass one like 'opcodes:12>2,45>1'")
        pairs = re.findall(r"(\d+)>(\d+)", match[2])
        return cls(match[1], tuple((int(decision), int(thread)) for decision, thread in pairs))  # type: ignore[arg-type]  # checked above
