"""Let Hypothesis draw schedules, and so shrink them: `@given(schedules())` around a test that calls `replay`."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from .schedule import Points, Schedule

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

__all__ = ["schedules"]

# So many decisions behind the switch before, at most.
NEAR = 8


def schedules(
    points: Points = "opcodes", *, max_switches: int = 6, max_distance: int = 60, threads: int = 4
) -> SearchStrategy[Schedule]:
    """Draw schedules for `replay`, together with whatever else Hypothesis draws for a test. Not a checkpoint.

    It shrinks towards few switches that come early. Needs the `hypothesis` package.

    Args:
        points: as for `explore`.
        max_switches: how many switches one schedule may have.
        max_distance: decisions between two of them, at most; most are drawn with few.
        threads: how many threads the program has, its main thread counted.
    """
    # An extra: whoever calls this has it.
    from hypothesis import strategies

    # Four of five are near, since most races need switches that follow each other closely. One number tells both, so
    # that what is near and what is far are shrunk alike.
    near = min(NEAR, max_distance) + 1
    numbers = strategies.integers(0, 5 * max_distance)
    switch = strategies.tuples(numbers, strategies.integers(0, threads - 1))

    def schedule(drawn: list[tuple[int, int]]) -> Schedule:
        # Distances, so that a switch that is moved takes those behind it along. At the same decision the last one
        # counts, and those before it can be left out.
        decisions = accumulate(number if number <= max_distance else number % near for number, _ in drawn)
        switches = dict(zip(decisions, (thread for _, thread in drawn), strict=True))
        return Schedule(points, tuple(switches.items()), wraps=True)

    return strategies.lists(switch, max_size=max_switches).map(schedule)
