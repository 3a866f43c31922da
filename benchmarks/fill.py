"""Fill a page with figures: between `<!-- figures: NAME -->` and `<!-- end -->` stands what this program wrote.

    python benchmarks/fill.py docs/explanation/performance.md results.json more.json where.md

NAME is a workload, or `goals`, `machine`, `left-out`, or `curve` and a workload: a plot in a file beside the page. A
workload that is in several results is taken from the last. A file NAME.md is put into its place as it is. A place for
which nothing is given keeps what it has.
"""

import re
import sys
from pathlib import Path

from goals import GOALS, reached

from vthreads.cli.bench.charts import lines
from vthreads.cli.bench.results import Results, grouped
from vthreads.cli.bench.table import named

PLACE = re.compile(r"(<!-- figures: ([\w -]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table_of(head, rows):
    """A table in Markdown; numbers stand at the right."""
    ruler = ["---", *("---:" for _ in head[1:])]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, ruler, *rows))


def workload_table(results, workload):
    """A row for each peer; a column for each size and figure."""
    tables = {place: rows for place, rows in results.tables().items() if place[0] == workload}
    cells = {(named(row), place): cell(results, row) for place, rows in tables.items() for row in rows}
    peers = dict.fromkeys(named(row) for rows in tables.values() for row in rows)
    head = [f"{rows[0].size:,} {rows[0].size_word}: {rows[0].unit}" for rows in tables.values()]
    rows = [
        [f"**{peer}**" if peer == "vthreads" else peer, *(cells.get((peer, place), "") for place in tables)]
        for peer in peers
    ]
    return f"`{results.command.partition(' --json')[0]}`\n\n" + table_of(["", *head], rows)


def cell(results, row):
    """The median, the spread, and the ratio to vthreads."""
    least, most = results.spread(row)
    ratio = results.ratio(row)
    spread = "" if least == most else f" ({least:,.2f}–{most:,.2f})"
    return f"{results.median(row):,.2f}{spread}" + ("" if ratio is None else f" · {ratio:.2f}")


def goals_table(everything):
    """Each goal, what was measured, and whether that is enough."""
    medians = {
        (row.workload, row.size, row.figure, row.peer): results.median(row)
        for results in everything
        for row in results.values
    }
    units = {(row.workload, row.figure): row.unit for results in everything for row in results.values}
    rows = []
    for goal in GOALS:
        unit = units.get((goal.workload, goal.figure), "")
        figure = reached(goal, medians)
        told = "not measured" if figure is None else f"{figure:.2f}"
        verdict = "" if figure is None else "reached" if figure <= goal.most else "**missed**"
        rows.append([f"{goal.workload}, {goal.size:,}: {unit}", bound(goal), told, verdict])
    return table_of(["operation", "goal", "measured", ""], rows)


def bound(goal):
    """The goal in words."""
    if goal.peer is None:
        return f"≤ {goal.most}"
    return f"≤ {goal.most} over {goal.peer}" if goal.over else f"≤ {goal.most} × {goal.peer}"


def machine_table(everything):
    """Machine, system and versions of the last results."""
    results = everything[-1]
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    facts = {**results.machine, "versions": versions, "date": results.date[:10]}
    return table_of(["", ""], [[name, str(value)] for name, value in facts.items()])


def left_out(everything):
    """Who is missing, and why."""
    rows = [
        [f"{workload}, {size:,}", ", ".join(peers), why]
        for results in everything
        for (workload, size, why), peers in grouped(results.left_out + results.failed).items()
    ]
    return table_of(["", "peers", "why"], rows) if rows else "Nobody.\n"


def curve(results, workload, page):
    """Draw how the figures of a workload grow with the size; the Markdown that shows it."""
    peers = {}
    for row in results.values:
        if row.workload == workload and row.size == row.measured_at:
            peers.setdefault(row.peer, []).append((row.size, results.median(row)))
            unit, size_word = row.unit, row.size_word
    drawing = page.with_name(f"{workload}.svg")
    drawing.write_text(lines(peers, size_word) + "\n", encoding="utf-8")
    return f"![{unit}, by {size_word}]({drawing.name})\n\n`{results.command.partition(' --json')[0]}`\n"


def sizes_of(results, workload):
    """How many sizes of a workload there are in these results."""
    return len({row.size for row in results.values if row.workload == workload})


def filling(name, everything, page):
    """What belongs into a place; None if there is nothing for it."""
    if name in WHOLE:
        return WHOLE[name](everything)
    workload = name.removeprefix("curve ")
    having = [results for results in everything if sizes_of(results, workload)]
    if not having:
        return None
    if workload == name:
        return workload_table(having[-1], workload)
    # The run with the most sizes shows most of it.
    return curve(max(having, key=lambda results: sizes_of(results, workload)), workload, page)


WHOLE = {"goals": goals_table, "machine": machine_table, "left-out": left_out}


def main():
    """Write the page anew."""
    page, *files = map(Path, sys.argv[1:])
    everything = [Results.read(file) for file in files if file.suffix == ".json"]
    ready = {file.stem: file.read_text(encoding="utf-8").strip() for file in files if file.suffix == ".md"}

    def filled(place):
        begin, name, end = place.groups()
        new = ready.get(name) or filling(name, everything, page)
        return place[0] if new is None else f"{begin}\n{new.strip()}\n\n{end}"

    page.write_text(PLACE.sub(filled, page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
