"""The figures of a run: medians, ranges, ratios, JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from .workloads import ENGINES

__all__ = ["Results", "Row", "Without", "grouped"]


class Without(NamedTuple):
    """A peer without a figure, with the reason."""

    workload: str
    size: int
    peer: str
    why: str


def grouped(without: list[Without]) -> dict[tuple[str, int, str], list[str]]:
    """Return the missing peers by workload, size and reason."""
    groups: dict[tuple[str, int, str], list[str]] = {}
    for one in without:
        groups.setdefault((one.workload, one.size, one.why), []).append(one.peer)
    return groups


class Row(NamedTuple):
    """Identifies a figure: workload, peer, size and unit.

    Attributes:
        size: the requested size.
        measured_at: the size of the measurement; smaller if the peer cannot do more.
    """

    workload: str
    size: int
    size_word: str
    figure: str
    unit: str
    peer: str
    measured_at: int

    @property
    def table(self) -> tuple[str, int, str]:
        """Return the key that rows have in common if they are compared with each other."""
        return self.workload, self.size, self.figure


@dataclass
class Results:
    """A run.

    Attributes:
        values: the figures of each row, one per round.
        left_out: peers that cannot be measured on this machine.
        failed: peers whose measurement failed.
        interrupted: whether the run ended before all measurements; not written to JSON.
    """

    date: str
    command: str
    rounds: int
    machine: dict[str, str | int]
    versions: dict[str, str]
    values: dict[Row, list[float]] = field(default_factory=dict)
    left_out: list[Without] = field(default_factory=list)
    failed: list[Without] = field(default_factory=list)
    interrupted: bool = False

    def add(self, row: Row, value: float) -> None:
        """Add the figure of one round."""
        self.values.setdefault(row, []).append(value)

    def median(self, row: Row) -> float:
        """Return the median of the rounds."""
        return median(self.values[row])

    def spread(self, row: Row) -> tuple[float, float]:
        """Return the minimum and maximum of the rounds."""
        return min(self.values[row]), max(self.values[row])

    def tables(self) -> dict[tuple[str, int, str], list[Row]]:
        """Return the groups of rows that are compared with each other, cheapest first."""
        tables: dict[tuple[str, int, str], list[Row]] = {}
        for row in self.values:
            tables.setdefault(row.table, []).append(row)
        for rows in tables.values():
            rows.sort(key=self.median)
        return tables

    def ratio(self, row: Row) -> float | None:
        """Return the ratio of this figure to that of vthreads; None if vthreads was not measured."""
        for name in ENGINES:
            for other in self.values:
                if other.table == row.table and other.peer == name:
                    return self.median(row) / self.median(other) if self.median(other) else None
        return None

    def write(self, file: Path) -> None:
        """Write all results as JSON."""
        document: dict[str, Any] = {
            "date": self.date,
            "command": self.command,
            "rounds": self.rounds,
            "machine": self.machine,
            "versions": self.versions,
            "rows": [self._as_json(row) for row in self.values],
            "left_out": [without._asdict() for without in self.left_out],
            "failed": [without._asdict() for without in self.failed],
        }
        file.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")

    def _as_json(self, row: Row) -> dict[str, Any]:
        least, most = self.spread(row)
        derived = {"median": self.median(row), "least": least, "most": most, "ratio": self.ratio(row)}
        return {**row._asdict(), **derived, "values": self.values[row]}

    @classmethod
    def read(cls, file: Path) -> Results:
        """Read results that `write` has written."""
        document = json.loads(file.read_text(encoding="utf-8"))
        rows = document.pop("rows")
        for kind in ("left_out", "failed"):
            document[kind] = [Without(**one) for one in document[kind]]
        results = cls(**document)
        for row in rows:
            results.values[Row(*(row[name] for name in Row._fields))] = row["values"]
        return results
