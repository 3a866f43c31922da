"""Results as one self-contained HTML page."""

from __future__ import annotations

from html import escape

from .charts import bars, lines
from .results import Results, Row, Without, grouped
from .table import named

__all__ = ["page_of"]

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1c2330; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; }
h2 { font-size: 1.2rem; margin-top: 2.5rem; border-top: 1px solid #d9dee5; padding-top: 1rem; }
h3 { font-size: 1rem; margin-bottom: .3rem; }
table { border-collapse: collapse; margin: .5rem 0 1rem; }
td, th { padding: .15rem .8rem .15rem 0; text-align: right; font-variant-numeric: tabular-nums; }
td:first-child, th:first-child { text-align: left; }
tr.ours { font-weight: 600; }
/* A narrow window scrolls a plot rather than shrink its text beyond reading. */
figure { margin: 0; overflow-x: auto; }
svg { max-width: 100%; min-width: 45rem; height: auto; }
code { font-size: .9em; }
"""

EXPLANATION = (
    "Processor time (user and system) of the measured process for one operation, unless the unit says otherwise. "
    "Each peer ran in a process of its own, pinned to one core; the peers took turns. Shown are the median of the "
    "rounds, the least and the most, and the ratio to vthreads: above 1, the peer costs more."
)

# A curve needs at least three points.
CURVE = 3


def page_of(results: Results) -> str:
    """Return the page as text."""
    body = [f"<h1>What an operation costs</h1><p>{EXPLANATION}</p>", _conditions(results)]
    tables = results.tables()
    for workload in dict.fromkeys(name for name, _, _ in tables):
        body.append(f"<h2>{escape(workload)}</h2>")
        body += _curves(results, workload)
        body += [_section(results, rows) for (name, _, _), rows in tables.items() if name == workload]
    body += [_without("Left out", results.left_out), _without("Failed", results.failed)]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width"/>'
        f"<title>vthreads: what an operation costs</title><style>{STYLE}</style></head>"
        f"<body>{''.join(body)}</body></html>\n"
    )


def _conditions(results: Results) -> str:
    facts = {
        "command": f"<code>{escape(results.command)}</code>",
        "date": escape(results.date),
        "rounds": str(results.rounds),
        **{name: escape(str(value)) for name, value in results.machine.items()},
        "versions": escape(", ".join(f"{name} {version}" for name, version in results.versions.items())),
    }
    rows = "".join(
        f'<tr><td>{name}</td><td style="text-align: left">{value}</td></tr>' for name, value in facts.items()
    )
    return f"<table>{rows}</table>"


def _section(results: Results, rows: list[Row]) -> str:
    first = rows[0]
    title = f"<h3>{first.size:,} {escape(first.size_word)}: {escape(first.unit)}</h3>"
    chart = bars([(named(row), results.median(row), *results.spread(row)) for row in rows])
    lines_of_table = "".join(_table_line(results, row) for row in rows)
    head = "<tr><th>peer</th><th>median</th><th>least</th><th>most</th><th>÷ vthreads</th></tr>"
    return f"{title}<figure>{chart}</figure><table>{head}{lines_of_table}</table>"


def _table_line(results: Results, row: Row) -> str:
    ratio = results.ratio(row)
    numbers = [results.median(row), *results.spread(row)]
    cells = [escape(named(row)), *(f"{number:,.2f}" for number in numbers), "" if ratio is None else f"{ratio:.2f}"]
    ours = ' class="ours"' if row.peer == "vthreads" else ""
    return f"<tr{ours}>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _curves(results: Results, workload: str) -> list[str]:
    """Return curves of each figure by size, if enough sizes were measured."""
    curves: dict[tuple[str, str], dict[str, list[tuple[float, float]]]] = {}
    for row in results.values:
        # A peer that was measured at a smaller size has no point here.
        if row.workload == workload and row.size == row.measured_at:
            points = curves.setdefault((row.unit, row.size_word), {}).setdefault(row.peer, [])
            points.append((row.size, results.median(row)))
    return [
        f"<h3>{escape(unit)}, by {escape(size_word)}</h3><figure>{lines(peers, size_word, unit)}</figure>"
        for (unit, size_word), peers in curves.items()
        if max(map(len, peers.values())) >= CURVE
    ]


def _without(title: str, without: list[Without]) -> str:
    if not without:
        return ""
    rows = "".join(
        f"<tr><td>{escape(workload)}, {size:,}</td><td>{escape(', '.join(peers))}</td>"
        f'<td style="text-align: left">{escape(why)}</td></tr>'
        for (workload, size, why), peers in grouped(without).items()
    )
    return f"<h2>{title}</h2><table>{rows}</table>"
