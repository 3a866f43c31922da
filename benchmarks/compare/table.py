"""Results as tables on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from .results import Results, Row, grouped

__all__ = ["named", "print_results"]


def print_results(results: Results) -> None:
    """Print a table for each figure, and the peers without one."""
    console = Console()
    for rows in results.tables().values():
        console.print(_table(results, rows))
    for title, without in (("left out", results.left_out), ("failed", results.failed)):
        for (workload, size, why), peers in grouped(without).items():
            line = f"{title}: {workload}, {size:,}: {', '.join(peers)}: {why}"
            console.print(line, soft_wrap=True, highlight=False, markup=False)


def _table(results: Results, rows: list[Row]) -> Table:
    first = rows[0]
    table = Table(title=f"{first.workload}, {first.size:,} {first.size_word}: {first.unit}", title_justify="left")
    table.add_column("peer")
    for column in ("median", "least – most", "÷ vthreads"):
        table.add_column(column, justify="right")
    for row in rows:
        least, most = results.spread(row)
        ratio = results.ratio(row)
        table.add_row(
            named(row),
            f"{results.median(row):,.2f}",
            f"{least:,.2f} – {most:,.2f}",
            "" if ratio is None else f"{ratio:.2f}",
            style="bold" if row.peer == "vthreads" else None,
        )
    return table


def named(row: Row) -> str:
    """Return the name of the peer, with the size if it is not the requested one."""
    return row.peer if row.measured_at == row.size else f"{row.peer} (at {row.measured_at:,})"
