"""The result of an exploration: its counts, or the schedule that fails and how it runs."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType

from ..._core.exceptions import set_traceback, summary_of, traceback_of
from ..._core.spawn_site import is_own_frame
from .run import Failure, Segment
from .schedule import Schedule
from .source_lines import describe_instruction, describe_place, describe_raise

__all__ = ["Exploration", "ScheduleFailed"]

# Most lines of a report.
MOST_SEGMENTS = 40


@dataclass(frozen=True)
class Exploration:
    """The counts of an exploration.

    Attributes:
        schedules: number of runs, without those that only shrank or confirmed a failure.
        distinct: number of different schedules among them.
        decisions: most decisions in a run.
        seconds: real time that the runs took.
        complete: whether the strategy had nothing left to try.
        passed_over: installed packages that ran and were stopped at locks and waits only; `modules` can include them.
    """

    schedules: int
    distinct: int
    decisions: int
    seconds: float
    complete: bool
    passed_over: tuple[str, ...] = ()

    @property
    def per_second(self) -> float:
        """Schedules per second of real time."""
        return self.schedules / self.seconds if self.seconds else 0.0

    def __str__(self) -> str:
        text = f"{self.schedules} schedules, {self.distinct} of them distinct, up to {self.decisions} decisions each"
        text = f"{text}, {self.per_second:.0f} a second{', complete' if self.complete else ''}"
        return "; ".join([text, *_passed_over_line(self.passed_over)])


class ScheduleFailed(AssertionError):
    """A schedule of the program fails; `__cause__` is the exception that was raised in it.

    Attributes:
        schedule: the shrunk schedule, for `replay`.
        found: the schedule as it was found.
        kind: "error", "error in a thread", "deadlock", "does not end" or "pinned".
        seed: of the exploration; None from `replay`.
        schedules: number of runs until the failure.
        exploration: all counts until the failure; None from `replay`.
        reproducible: whether the schedule failed again when it was run again. If not, the program keeps state between
            runs, or depends on something that is not part of the schedule.
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
        passed_over: tuple[str, ...] = (),
    ) -> None:
        self.kind = failure.kind
        self.schedule = schedule
        self.found: Schedule = found or schedule
        self.seed = seed
        self.schedules: int = 1 if exploration is None else exploration.schedules
        self.exploration = exploration
        self.reproducible = reproducible
        super().__init__(
            "\n".join(
                [*self._head(failure), "", *_lines_of_run(segments), "", *_passed_over_line(passed_over), *self._tail()]
            )
        )
        _keep_program(failure.error)
        self.__cause__: BaseException | None = failure.error

    def _head(self, failure: Failure) -> list[str]:
        error = failure.error
        what = f"{failure.kind}, in '{failure.thread}'" if failure.kind.startswith("error") else failure.kind
        lines = [f"{what}: {_text_of(error)}"]
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
            f"Run again, {self.schedule} did not fail: the function keeps state between calls,",
            "or depends on something that is not part of a schedule (hash seeds, the file system, other processes).",
        ]


def _passed_over_line(packages: tuple[str, ...]) -> list[str]:
    return [f"not stopped at lines or instructions: {', '.join(packages)} (see modules=)"] if packages else []


def _keep_program(error: BaseException) -> None:
    """Keep only frames of the program and of libraries in the traceback of `error`."""
    entries, traceback = [], traceback_of(error)
    while traceback is not None:
        if not is_own_frame(traceback.tb_frame):
            entries.append(traceback)
        traceback = traceback.tb_next
    for entry in reversed(entries):
        traceback = TracebackType(traceback, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    set_traceback(error, traceback)


def _text_of(error: BaseException) -> str:
    text = summary_of(error)
    return text if ": " in text else f"{text}: {describe_raise(error)}"


def _lines_of_run(segments: list[Segment]) -> list[str]:
    lines = ["The run, in order (* where the schedule switches):"]
    lines += [_line_of(segment) for segment in segments[:MOST_SEGMENTS]]
    if len(segments) > MOST_SEGMENTS:
        lines.append(f"  and {len(segments) - MOST_SEGMENTS} more")
    return lines


def _line_of(segment: Segment) -> str:
    mark = "*" if segment.chosen else " "
    if segment.why == "ends":
        return f" {mark} '{segment.thread}' runs to its end{_points_of(segment)}"
    if segment.place is None:
        return f" {mark} '{segment.thread}' {segment.why} before its first line"
    instruction = describe_instruction(segment.place) if segment.why == "is stopped" else ""
    before = f" before {instruction}" if instruction else ""
    return f" {mark} '{segment.thread}' {segment.why}{before} at {describe_place(segment.place)}"


def _points_of(segment: Segment) -> str:
    """Return the first and last point of the segment; on one line if that is one line of the program."""
    if segment.first is None:
        return ""
    first, last = describe_place(segment.first), describe_place(segment.last)
    return f", at {first}" if first == last else f",\n     from {first}\n     to {last}"
