"""Count the schedules until each known race is found, and the schedules per second. Output: a Markdown table.

    python benchmarks/explore.py             print the table
    python benchmarks/explore.py --write     write it to docs/how-to/find-races.md

The number of schedules is the median over seeds. The number of switches left is the maximum. Exhaustive search has no
seed. Schedules per second of CPU time are measured with the correct version, which runs all schedules.
"""

import argparse
import platform
import sys
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent))

from races import RACES

from vthreads.testing import ScheduleFailed, explore

PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "find-races.md"
BEGIN, END = "<!-- begin of the table -->\n", "<!-- end of the table -->\n"

HEADINGS = ("race", "random", "pct", "exhaustive", "switches left", "schedules per second")


def schedules_until_found(program, strategy: str, seed: int, most: int, shrink: bool = False) -> tuple[int | None, int]:
    """Number of schedules until the failure (None: more than `most`), and of switches in the failing one."""
    try:
        explore(program, strategy=strategy, seed=seed, schedules=most, shrink=shrink)
    except ScheduleFailed as failed:
        return failed.schedules, len(failed.schedule.switches)
    return None, 0


def schedules_per_second(program, schedules: int) -> float:
    """Schedules per second of CPU time."""
    started = time.process_time()
    explore(program, seed=1, schedules=schedules)
    return schedules / (time.process_time() - started)


def row(name: str, seeds: int, most: int, schedules: int) -> list[str]:
    """Return the cells of one race."""
    broken, correct = RACES[name]
    cells = [name]
    for strategy in ("random", "pct"):
        counts = [schedules_until_found(broken, strategy, seed, most)[0] or most for seed in range(seeds)]
        cells.append(f"{median(counts):.0f}")
    count, _ = schedules_until_found(broken, "exhaustive", 0, most)
    cells.append(f"> {most}" if count is None else f"{count}")
    cells.append(str(max(schedules_until_found(broken, "random", seed, most, True)[1] for seed in range(seeds))))
    cells.append(f"{schedules_per_second(correct, schedules):.0f}")
    return cells


def table(seeds: int, most: int, schedules: int) -> str:
    """Return the table of all races."""
    rows = [HEADINGS, ["---"] * len(HEADINGS), *(row(name, seeds, most, schedules) for name in RACES)]
    lines = "".join(f"| {' | '.join(cells)} |\n" for cells in rows)
    return f"{lines}\nCPython {platform.python_version()}, {platform.machine()}, points at opcodes, {seeds} seeds.\n"


def main() -> None:
    """Print the table, or write it to the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=9)
    parser.add_argument("--most", type=int, default=5000, help="schedules to try")
    parser.add_argument("--schedules", type=int, default=500, help="schedules of the mended version")
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.name}")
    options = parser.parse_args()
    text = table(options.seeds, options.most, options.schedules)
    if not options.write:
        sys.stdout.write(text)
        return
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


if __name__ == "__main__":
    main()
