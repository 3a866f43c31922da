"""Measure shares of CPU time by part of the process with perf, for the accelerated engine.

    python benchmarks/where.py                    a table in Markdown
    python benchmarks/where.py echo:100 queue:1   of these workloads and sizes

Requires perf (Linux) and permission to use it: sysctl kernel.perf_event_paranoid=1. The shares include start and
imports.
"""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from fill import table_of

WORKLOADS = ("echo:100", "yield:100", "spawn_join:50000", "sleeps:50000", "queue:1", "http_client:100")

# Parts by prefix of the name of a shared object; all others are "the rest".
PARTS = {
    "[kernel": "kernel",
    "libpython": "interpreter",
    "python": "interpreter",
    "accelerated": "compiled engine",
    "_greenlet": "greenlet",
    "libc.": "C library",
}
COLUMNS = [*dict.fromkeys(PARTS.values()), "the rest"]


def shares(workload, size):
    """Return per cent of the samples by part."""
    with TemporaryDirectory() as folder:
        recorded = f"{folder}/perf.data"
        environment = {**os.environ, "VTHREADS_ENGINE": "accelerated", "VTHREADS_BENCH_BUILD": folder}
        environment["PYTHONPATH"] = str(Path(__file__).parent)
        measure = [sys.executable, "-P", "-m", "macro.measure", workload, "vthreads", size]
        record = ["perf", "record", "--freq", "999", "--output", recorded, "--", *measure]
        subprocess.run(record, env=environment, check=True, capture_output=True)
        # Only samples of Python: this leaves out the C program that generates the load.
        report = ["perf", "report", "--input", recorded, "--comm", Path(sys.executable).name, "--sort", "dso"]
        report_text = subprocess.run([*report, "--stdio"], check=True, capture_output=True, text=True).stdout
    return by_part(report_text)


def by_part(report):
    """Add up the lines of a report; each is a share and a shared object."""
    parts = Counter()
    for line in report.splitlines():
        if line.strip() and not line.startswith("#"):
            share, name = line.split(maxsplit=1)
            part = next((part for begin, part in PARTS.items() if name.startswith(begin)), "the rest")
            parts[part] += float(share.rstrip("%"))
    return {part: share / parts.total() * 100 for part, share in parts.items()}


def main():
    """Print a line for each workload."""
    rows = []
    for chosen in sys.argv[1:] or WORKLOADS:
        workload, size = chosen.split(":")
        found = shares(workload, size)
        rows.append([f"{workload}, {int(size):,}", *(f"{found.get(part, 0):.0f} %" for part in COLUMNS)])
    print(table_of(["", *COLUMNS], rows))


if __name__ == "__main__":
    main()
