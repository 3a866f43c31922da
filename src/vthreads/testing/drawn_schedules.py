"""Let Hypothesis draw schedules, and so shrink them: `@given(schedules())` around a test that calls `replay`."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from .schedule import Points, Schedule

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

__all__ = ["schedules"]


def schedules(
    points: Points = "opcodes", *, max_switches: int = 6, max_distance: int = 60, threads: int = 4
) -> SearchStrategy[Schedule]:
    """Draw schedules for `replay`, together with whatever else Hypothesis draws for a test. Not a checkpoint.

    It shrinks towards few switches that come early. Needs the `hypothesis` package.

    Args:
        points: as for `explore`.
        max_switches: how many switches one schedule may have.
        max_distance: decisions between two of them, at most.
        threads: how many threads the program has, its main thread counted.
    """
    # An extra: whoever calls this has it.
    from hypothesis import strategies

    switch = strategies.tuples(strategies.integers(0, max_distance), strategies.integers(0, threads - 1))

    def schedule(drawn: list[tuple[int, int]]) -> Schedule:
        # Distances, so that a switch that is left out or moved takes those behind it along.
        decisions = accumulate(distance + 1 for distance, _ in drawn)
        return Schedule(
            points, tuple((decision - 1, thread) for decision, (_, thread) in zip(decisions, drawn, strict=True))
        )

    return strategies.lists(switch, max_size=max_switches).map(schedule)
