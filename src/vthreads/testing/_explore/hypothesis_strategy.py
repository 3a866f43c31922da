"""A Hypothesis strategy that draws and shrinks schedules: `@given(schedules())` around a test that calls `replay`."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from ..._core.on_demand import ModuleOnDemand
from .schedule import Points, Schedule

if TYPE_CHECKING:
    from hypothesis import strategies
else:
    # An optional dependency, imported if `schedules` is called.
    strategies = ModuleOnDemand("hypothesis.strategies")

__all__ = ["schedules"]

# Longest distance, in decisions, that counts as near.
NEAR = 8


def schedules(
    points: Points = "opcodes", *, max_switches: int = 6, max_distance: int = 60, threads: int = 4
) -> strategies.SearchStrategy[Schedule]:
    """Draw schedules for `replay`, together with other values that Hypothesis draws for a test. Not a checkpoint.

    Shrinks towards few, early switches. Needs the `hypothesis` package.

    Args:
        points: as for `explore`.
        max_switches: most switches in a schedule.
        max_distance: most decisions between two switches; usually there are few.
        threads: number of threads of the program, including its main thread.
    """
    # Four of five are near, because most races need switches that follow each other closely. The same number encodes
    # near and far distances, so that both shrink alike.
    near = min(NEAR, max_distance) + 1
    numbers = strategies.integers(0, 5 * max_distance)
    switch = strategies.tuples(numbers, strategies.integers(0, threads - 1))

    def schedule(drawn: list[tuple[int, int]]) -> Schedule:
        # Distances, so that moving a switch moves those behind it too. Of several switches at the same decision only
        # the last counts, so the others can be left out.
        decisions = accumulate(number if number <= max_distance else number % near for number, _ in drawn)
        switches = dict(zip(decisions, (thread for _, thread in drawn), strict=True))
        return Schedule(points, tuple(switches.items()), wraps=True)

    return strategies.lists(switch, max_size=max_switches).map(schedule)
