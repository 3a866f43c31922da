"""Compare a column with plain Python, test by test."""

from dataclasses import dataclass

from .columns import JUDGED
from .known import KNOWN, Known
from .supervise import Outcome, Outcomes

__all__ = ["Comparison", "Deviation", "stale"]

NOT_RUN = Outcome("not run")


@dataclass
class Deviation:
    """A test that passes on plain Python and does not in `column`."""

    column: str
    name: str
    outcome: Outcome
    known: Known | None = None


class Comparison:
    """One module in one column, beside the same module on plain Python."""

    def __init__(self, module: str, column: str, plain: Outcomes, outcomes: Outcomes) -> None:
        self.module = module
        self.column = column
        self.outcomes = outcomes
        self.expected = {name for name, outcome in plain.items() if outcome.passed}
        self.deviations = [
            Deviation(column, name, outcomes.get(name, NOT_RUN), known_for(column, name))
            for name in plain
            if name in self.expected and not outcomes.get(name, NOT_RUN).passed
        ]
        # Tests that did not deviate when they ran again without the rest of their module.
        self.unsteady: list[Deviation] = []

    @property
    def passed(self) -> int:
        return len(self.expected) - len(self.deviations)

    @property
    def unexplained(self) -> list[Deviation]:
        return [deviation for deviation in self.deviations if deviation.known is None]

    @property
    def faults(self) -> list[Deviation]:
        """The entries that are missing in the table."""
        return self.unexplained if self.column in JUDGED else []

    def confirm(self, plain_again: Outcomes, again: Outcomes) -> None:
        """Take out what a second run, of these tests alone, does not show: the machine was busy, or plain fails too."""
        for deviation in list(self.unexplained):
            steady = plain_again.get(deviation.name, NOT_RUN).passed
            second = again.get(deviation.name, NOT_RUN)
            if steady and not second.passed:
                deviation.outcome = second if second.detail else deviation.outcome
                continue
            self.deviations.remove(deviation)
            self.unsteady.append(deviation)
            if not steady:
                self.expected.discard(deviation.name)


def known_for(column: str, name: str) -> Known | None:
    return next((known for known in KNOWN if known.covers(column, name)), None)


def stale(comparisons: list[Comparison]) -> list[Known]:
    """The entries of the table whose tests were run here and pass now."""
    deviating = {id(deviation.known) for comparison in comparisons for deviation in comparison.deviations}
    return [
        known
        for known in KNOWN
        if not known.sometimes
        and id(known) not in deviating
        and any(known.covers(one.column, name) for one in comparisons for name in one.expected)
    ]
