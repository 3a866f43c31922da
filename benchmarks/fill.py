"""Fill a page with figures: between `<!-- figures: NAME -->` and `<!-- end -->` stands what this program wrote.

    python benchmarks/fill.py docs/explanation/performance.md results.json more.json where.md

NAME is a workload, or `goals`, `machine`, `left-out`, or `curve` and a workload: a plot in a file beside the page. A
figure that is in several results is taken from the last. A file NAME.md is put into its place as it is. A place for
which nothing is given keeps what it has.
"""

import re
import sys
from pathlib import Path

from goals import GOALS, reached

from vthreads.cli.bench.charts import lines
from vthreads.cli.bench.results import Results, grouped
from vthreads.cli.bench.table import named
from vthreads.cli.bench.workloads import Workload

PLACE = re.compile(r"(<!-- figures: ([\w -]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table_of(head, rows):
    """A table in Markdown; numbers stand at the right."""
    ruler = ["---", *("---:" for _ in head[1:])]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, ruler, *rows))


def workload_of(name):
    """What a workload says of itself."""
    return Workload(Path(__file__).parent, name)


class Figures:
    """What several runs have found, and by which commands."""

    def __init__(self, files):
        self._runs = [Results.read(file) for file in files]
        self._whole = Results.read(files[-1])
        self._whole.values = {row: values for run in self._runs for row, values in run.values.items()}
        self._commands = {row: run.command for run in self._runs for row in run.values}

    def of(self, workload):
        """The rows of a workload."""
        return [row for row in self._whole.values if row.workload == workload]

    def table(self, workload):
        """A row for each peer; a column for each figure, and for each size that the workload has by itself."""
        sizes = workload_of(workload).sizes
        tables = {rows[0].table: rows for rows in self._whole.tables().values() if rows[0].workload == workload}
        places = sorted((place for place in tables if place[1] in sizes), key=lambda place: place[1])
        cells = {(named(row), place): self.cell(row) for place in places for row in tables[place]}
        firsts = [tables[place][0] for place in places]
        head = ["", *(f"{row.size:,} {row.size_word}: {row.unit}" for row in firsts)]
        rows = [
            [f"**{peer}**" if peer == "vthreads" else peer, *(cells.get((peer, place), "") for place in places)]
            for peer in dict.fromkeys(peer for peer, _ in cells)
        ]
        return f"{self.commands(row for place in places for row in tables[place])}\n\n{table_of(head, rows)}"

    def commands(self, rows):
        """The commands that have found these rows, in Markdown."""
        found = dict.fromkeys(self._commands[row] for row in rows)
        return ", ".join(f"`{re.sub(' --(json|html) [^ ]+', '', command)}`" for command in found)

    def cell(self, row):
        """The median, the spread, and the ratio to vthreads."""
        least, most = self._whole.spread(row)
        ratio = self._whole.ratio(row)
        spread = "" if least == most else f" ({least:,.2f}–{most:,.2f})"
        return f"{self._whole.median(row):,.2f}{spread}" + ("" if ratio is None else f" · {ratio:.2f}")

    def curve(self, workload, page):
        """Draw how a figure grows with the size, in a file beside the page; the Markdown that shows it."""
        rows = [row for row in self.of(workload) if row.size == row.measured_at]
        peers = {}
        for row in rows:
            peers.setdefault(row.peer, []).append((row.size, self._whole.median(row)))
        drawing = page.with_name(f"{workload}.svg")
        drawing.write_text(lines(peers, rows[0].size_word) + "\n", encoding="utf-8")
        return f"![{rows[0].unit}, by {rows[0].size_word}]({drawing.name})\n\n{self.commands(rows)}"

    def goals(self):
        """Each goal, what was measured, and whether that is enough."""
        medians = {(*row.table, row.peer): self._whole.median(row) for row in self._whole.values}
        rows = []
        for goal in GOALS:
            figure = reached(goal, medians)
            told = "not measured" if figure is None else f"{figure:.2f}"
            verdict = "" if figure is None else "reached" if figure <= goal.most else "**missed**"
            unit = workload_of(goal.workload).figures[goal.figure]
            rows.append([f"{goal.workload}, {goal.size:,}: {unit}", bound(goal), told, verdict])
        return table_of(["operation", "goal", "measured", ""], rows)

    def machine(self):
        """Machine, system and versions of the last run."""
        versions = ", ".join(f"{name} {version}" for name, version in self._whole.versions.items())
        facts = {**self._whole.machine, "versions": versions, "date": self._whole.date[:10]}
        return table_of(["", ""], [[name, str(value)] for name, value in facts.items()])

    def left_out(self):
        """Who is missing, and why."""
        rows = [
            [f"{workload}, {size:,}", ", ".join(peers), why]
            for run in self._runs
            for (workload, size, why), peers in grouped(run.left_out + run.failed).items()
        ]
        return table_of(["", "peers", "why"], rows) if rows else "Nobody."

    def filling(self, name, page):
        """What belongs into a place; None if there is nothing for it."""
        whole = {"goals": self.goals, "machine": self.machine, "left-out": self.left_out}
        if name in whole:
            return whole[name]()
        workload = name.removeprefix("curve ")
        if not self.of(workload):
            return None
        return self.table(workload) if workload == name else self.curve(workload, page)


def bound(goal):
    """The goal in words."""
    if goal.peer is None:
        return f"≤ {goal.most}"
    return f"≤ {goal.most} over {goal.peer}" if goal.over else f"≤ {goal.most} × {goal.peer}"


def main():
    """Write the page anew."""
    page, *files = map(Path, sys.argv[1:])
    figures = Figures([file for file in files if file.suffix == ".json"])
    ready = {file.stem: file.read_text(encoding="utf-8") for file in files if file.suffix == ".md"}

    def filled(place):
        begin, name, end = place.groups()
        new = ready.get(name) or figures.filling(name, page)
        return place[0] if new is None else f"{begin}\n{new.strip()}\n\n{end}"

    page.write_text(PLACE.sub(filled, page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
