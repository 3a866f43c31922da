"""What an exploration found: the counts when all is well, or the schedule that fails and how it runs."""

from __future__ import annotations

from dataclasses import dataclass

from .schedule import Schedule
from .source_lines import describe_instruction, describe_place, describe_raise
from .trial import Failure, Segment

__all__ = ["Exploration", "ScheduleFailed"]

# Lines of a report.
MOST_SEGMENTS = 40


@dataclass(frozen=True)
class Exploration:
    """What was tried.

    Attributes:
        schedules: runs that were made, without those that only shrank or confirmed a failure.
        distinct: how many different schedules these were.
        decisions: the decisions of the longest of them.
        seconds: real time that they took.
        complete: whether the strategy had nothing left to try.
    """

    schedules: int
    distinct: int
    decisions: int
    seconds: float
    complete: bool

    @property
    def per_second(self) -> float:
        """Schedules per second of real time."""
        return self.schedules / self.seconds if self.seconds else 0.0

    def __str__(self) -> str:
        text = f"{self.schedules} schedules, {self.distinct} of them distinct, up to {self.decisions} decisions each"
        return f"{text}, {self.per_second:.0f} a second{', complete' if self.complete else ''}"


class ScheduleFailed(AssertionError):
    """A schedule of the program fails; `__cause__` is what was raised in it.

    Attributes:
        schedule: the shrunk schedule, for `replay`.
        found: the schedule as it was found.
        kind: "error", "error in a thread", "deadlock", "does not end" or "pinned".
        seed: of the exploration; None from `replay`.
        schedules: how many were run until it failed.
        exploration: all the counts up to then; None from `replay`.
        reproducible: whether the schedule failed again when it was run again. If not, the program keeps something from
            one run to the next, or asks something that has no place in the schedule.
    """

    def __init__(
        self,
        failure: Failure,
        schedule: Schedule,
        segments: list[Segment],
        found: Schedule | None = None,
        seed: int | None = None,
        exploration: Exploration | None = None,
        reproducible: bool = True,
    ) -> None:
        self.kind = failure.kind
        self.schedule = schedule
        self.found = found or schedule
        self.seed = seed
        self.schedules = 1 if exploration is None else exploration.schedules
        self.exploration = exploration
        self.reproducible = reproducible
        super().__init__("\n".join([*self._head(failure), "", *_story(segments), "", *self._tail()]))
        self.__cause__ = failure.error

    def _head(self, failure: Failure) -> list[str]:
        error = failure.error
        what = f"{failure.kind}, in '{failure.thread}'" if failure.kind.startswith("error") else failure.kind
        lines = [f"{what}: {type(error).__name__}: {str(error) or describe_raise(error)}"]
        if self.exploration is not None:
            made = self.exploration
            switches = len(self.found.switches), len(self.schedule.switches)
            lines.append(
                f"schedule {made.schedules} ({made.distinct} distinct, {made.per_second:.0f} a second) of seed "
                f"{self.seed}; shrunk from {switches[0]} switches to {switches[1]}"
            )
        return lines

    def _tail(self) -> list[str]:
        if self.reproducible:
            return [f'Run it again: replay(fn, "{self.schedule}")']
        return [
            f"Run again, {self.schedule} did not fail: the function keeps something from one call to the next,",
            "or depends on what is no part of a schedule (hash seeds, the file system, other processes).",
        ]


def _story(segments: list[Segment]) -> list[str]:
    lines = ["What ran, in this order (* where the schedule switches):"]
    lines += [_tell(segment) for segment in segments[:MOST_SEGMENTS]]
    if len(segments) > MOST_SEGMENTS:
        lines.append(f"  and {len(segments) - MOST_SEGMENTS} more")
    return lines


def _tell(segment: Segment) -> str:
    mark = "*" if segment.chosen else " "
    if segment.why == "ends":
        return f" {mark} '{segment.thread}' runs to its end{_tell_points(segment)}"
    if segment.place is None:
        return f" {mark} '{segment.thread}' {segment.why} before its first line"
    instruction = describe_instruction(segment.place) if segment.why == "is stopped" else ""
    before = f" before {instruction}" if instruction else ""
    return f" {mark} '{segment.thread}' {segment.why}{before} at {describe_place(segment.place)}"


def _tell_points(segment: Segment) -> str:
    """From where to where it ran, in one line if that is one line of the program."""
    if segment.first is None:
        return ""
    first, last = describe_place(segment.first), describe_place(segment.last)
    return f", at {first}" if first == last else f",\n     from {first}\n     to {last}"
