"""A schedule: at which decisions another thread runs than the one that would run by itself.

By itself the running thread goes on, and when it waits or ends, the one that has been ready longest follows. A decision
is a place where at least two threads could run; decisions and threads are numbered from 0 in the order in which they
come up, the root being thread 0. So a schedule is a few pairs of numbers, means something without the run it was found
in, and stays a schedule when a pair is left out, which is how it is shrunk.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

__all__ = ["Points", "Schedule", "Switch"]

# Where the running thread may be stopped.
Points = Literal["checkpoints", "lines", "opcodes"]

# The number of a decision, and the number of the thread that runs from there.
Switch = tuple[int, int]

WRITTEN = re.compile(r"(\w+):((?:\d+>\d+(?:,|$))*)")


@dataclass(frozen=True)
class Schedule:
    """Which thread runs when, as the differences from a run without any preemption.

    `str()` writes it in one line, `parse` reads that, and `replay` takes either.

    Attributes:
        points: where threads were stopped: "checkpoints", "lines" or "opcodes".
        switches: pairs of decision and thread, by ascending decision. A pair whose thread cannot run there does
            nothing.
        wraps: whether it stands for one that can, counted round, instead; for schedules that are drawn by somebody who
            does not know the threads. `str()` does not tell.
    """

    points: Points
    switches: tuple[Switch, ...] = ()
    wraps: bool = False

    def __post_init__(self) -> None:
        if self.points not in get_args(Points):
            raise ValueError(f"points={self.points!r}: choose one of {', '.join(get_args(Points))}")

    def __str__(self) -> str:
        return f"{self.points}:" + ",".join(f"{decision}>{thread}" for decision, thread in self.switches)

    @classmethod
    def parse(cls, text: str) -> Schedule:
        """Read what `str()` wrote. Not a checkpoint; thread-safe.

        Raises:
            ValueError: it is not of that form.
        """
        match = WRITTEN.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"{text!r} is no schedule; one looks like 'opcodes:12>2,45>1'")
        pairs = re.findall(r"(\d+)>(\d+)", match[2])
        return cls(match[1], tuple((int(decision), int(thread)) for decision, thread in pairs))  # type: ignore[arg-type]  # checked above
