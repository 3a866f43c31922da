"""Fill a page with figures: replace the text between `<!-- figures: NAME -->` and `<!-- end -->`.

    python benchmarks/fill.py docs/explanation/performance.md results.json more.json where.md

NAME is a workload, `goals`, `machine`, `left-out`, `runs`, or `curve` and a workload: a plot in a file beside the page.
If several runs have a figure, that of the latest run is used, in whatever order the files are given. A file NAME.md is
inserted unchanged. A place without new figures keeps its text, and `runs` keeps the runs of such places.
"""

import re
import sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from compare.charts import lines
from compare.results import Results, grouped
from compare.table import named
from compare.workloads import Workload
from goals import GOALS, reached

PLACE = re.compile(r"(<!-- figures: ([\w -]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table_of(head, rows, ruler="---:"):
    """Return a Markdown table; the columns after the first are numbers, unless `ruler` aligns them on the left."""
    ruler = ["---", *(ruler for _ in head[1:])]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, ruler, *rows))


def workload_of(name):
    """Return the description of a workload."""
    return Workload(Path(__file__).parent, name)


class Figures:
    """Results of several runs, with the commands that produced them."""

    def __init__(self, files):
        self._runs = sorted(map(Results.read, files), key=lambda run: datetime.fromisoformat(run.date))
        values = {row: values for run in self._runs for row, values in run.values.items()}
        # A run of a few peers may be made where the packages of the others are not installed.
        versions = {name: version for run in self._runs for name, version in run.versions.items()}
        self._whole = replace(self._runs[-1], values=values, versions=versions)
        self._run_of = {row: run for run in self._runs for row in run.values}

    def of(self, workload):
        """Return the rows of a workload."""
        return [row for row in self._whole.values if row.workload == workload]

    def table(self, workload):
        """Return one row per peer, with one column per figure and default size of the workload."""
        sizes = workload_of(workload).sizes
        tables = {rows[0].table: rows for rows in self._whole.tables().values() if rows[0].workload == workload}
        places = sorted((place for place in tables if place[1] in sizes), key=lambda place: place[1])
        cells = {(named(row), place): self.cell(row) for place in places for row in tables[place]}
        firsts = [tables[place][0] for place in places]
        head = ["", *(f"{counted(row.size, row.size_word)}: {row.unit}" for row in firsts)]
        rows = [
            [f"**{peer}**" if peer == "vthreads" else peer, *(cells.get((peer, place), "") for place in places)]
            for peer in dict.fromkeys(peer for peer, _ in cells)
        ]
        return f"{self.runs_of(row for place in places for row in tables[place])}\n\n{table_of(head, rows)}"

    def runs_of(self, rows):
        """Return the dates of the runs that produced these rows, in Markdown."""
        dates = sorted({dated(self._run_of[row]) for row in rows})
        return f"[{'Run' if len(dates) == 1 else 'Runs'}](#runs) of {', '.join(dates)}"

    def runs(self, text):
        """Return the command of each run of the page, `text` being what the page has."""
        known = dict(re.findall(r"^\| ([\d: -]+) \| (`.+`) \|$", text, re.MULTILINE))
        of_rows = {dated(run): f"`{re.sub(' --(json|html) [^ ]+', '', run.command)}`" for run in self._run_of.values()}
        return table_of(["run", "command"], [list(run) for run in sorted({**known, **of_rows}.items())], ruler="---")

    def cell(self, row):
        """Return the median, the range, and the ratio to vthreads."""
        least, most = self._whole.spread(row)
        ratio = self._whole.ratio(row)
        spread = "" if least == most else f" ({least:,.2f}–{most:,.2f})"
        return f"{self._whole.median(row):,.2f}{spread}" + ("" if ratio is None else f" · {ratio:.2f}")

    def curve(self, workload, page):
        """Draw the growth of a figure with the size in a file beside the page; return the Markdown that shows it."""
        figure = next(iter(workload_of(workload).figures))
        rows = [row for row in self.of(workload) if row.size == row.measured_at and row.figure == figure]
        peers = {}
        for row in rows:
            peers.setdefault(row.peer, []).append((row.size, self._whole.median(row)))
        drawing = page.with_name(f"{workload}.svg")
        drawing.write_text(lines(peers, rows[0].size_word, f"{workload}: {rows[0].unit}") + "\n", encoding="utf-8")
        return f"![{rows[0].unit}, by {rows[0].size_word}]({drawing.name})\n\n{self.runs_of(rows)}"

    def goals(self):
        """Return each goal, the measured figure, and whether the goal is reached."""
        medians = {(*row.table, row.peer): self._whole.median(row) for row in self._whole.values}
        rows = []
        for goal in GOALS:
            figure = reached(goal, medians)
            shown = "not measured" if figure is None else f"{figure:.2f}"
            verdict = "" if figure is None else "reached" if figure <= goal.most else "**missed**"
            unit = workload_of(goal.workload).figures[goal.figure]
            rows.append([f"{goal.workload}, {goal.size:,}: {unit}", bound(goal), shown, verdict])
        return table_of(["operation", "goal", "measured", ""], rows)

    def machine(self):
        """Return machine and system of the last run, and the last known version of each package."""
        versions = ", ".join(f"{name} {version}" for name, version in self._whole.versions.items())
        facts = {**self._whole.machine, "versions": versions, "date": self._whole.date[:10]}
        rows = [[name, re.sub(r"^(\d+) kB$", in_gigabytes, str(value))] for name, value in facts.items()]
        return table_of(["property", "value"], rows, ruler="---")

    def left_out(self):
        """Return the missing peers with reasons."""
        rows = [
            [f"{workload}, {size:,}", ", ".join(peers), why]
            for run in self._runs
            for (workload, size, why), peers in grouped(run.left_out + run.failed).items()
        ]
        return table_of(["workload", "peers", "why"], rows, ruler="---") if rows else "None."

    def filling(self, name, page, text):
        """Return the text for a place that has a text now; None if there is none."""
        if name == "runs":
            return self.runs(text)
        whole = {"goals": self.goals, "machine": self.machine, "left-out": self.left_out}
        if name in whole:
            return whole[name]()
        workload = name.removeprefix("curve ")
        if not self.of(workload):
            return None
        return self.table(workload) if workload == name else self.curve(workload, page)


def dated(run):
    """Return date and time of a run, to the minute."""
    return f"{datetime.fromisoformat(run.date):%Y-%m-%d %H:%M}"


def counted(number, word):
    """Return the number with the word, which is a plural."""
    single = word.removesuffix("es") if word.endswith("sses") else word.removesuffix("s")
    return f"{number:,} {single if number == 1 else word}"


def in_gigabytes(kilobytes):
    """Return the match of a number of kB as GB."""
    return f"{int(kilobytes[1]) / 1e6:.0f} GB"


def bound(goal):
    """Return the goal as text."""
    if goal.peer is None:
        return f"≤ {goal.most}"
    peer = f"{goal.peer}, {goal.beside}" if goal.beside else goal.peer
    return f"≤ {goal.most} over {peer}" if goal.over else f"≤ {goal.most} × {peer}"


def main():
    """Rewrite the page."""
    page, *files = map(Path, sys.argv[1:])
    figures = Figures([file for file in files if file.suffix == ".json"])
    ready = {file.stem: file.read_text(encoding="utf-8") for file in files if file.suffix == ".md"}

    def filled(place):
        begin, name, end = place.groups()
        new = ready.get(name) or figures.filling(name, page, place[0])
        return place[0] if new is None else f"{begin}\n{new.strip()}\n\n{end}"

    page.write_text(PLACE.sub(filled, page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
