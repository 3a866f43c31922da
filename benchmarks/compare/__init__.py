"""Compare vthreads with its peers: `python -m benchmarks.compare`, from the root of a checkout.

The package selects workloads and peers, measures them in alternating rounds, and prints the results. The workloads are
in `benchmarks/macro`. vthreads is one of the peers.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from .machine import machine, versions
from .results import Results
from .rounds import Choice, measure_all
from .workloads import Workload, workload_names

__all__ = ["BENCHMARKS", "main"]

BENCHMARKS = Path(__file__).parents[1]

DESCRIPTION = """\
Measure what an operation costs: processor time (user and system), each peer in a process of its own, pinned to one
core. Its counterpart (a client, a server) runs on another core. The peers alternate, round after round, so that a
change in the speed of the machine affects all of them. Peers that cannot run here are listed with the reason.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the selected workloads and print the results; return the exit status, 1 if a measurement failed."""
    options = _parser().parse_args(arguments)
    if sys.platform != "linux":
        sys.exit("the benchmarks pin processes to cores and read the clocks of others: they need Linux")
    try:
        # rich is used at the end of a long run; fail now if it is missing.
        from .page import page_of
        from .table import print_results
    except ImportError as missing:
        sys.exit(f"the tables need a library that is not installed ({missing}); pip install 'vthreads[bench]'")
    if not (options.folder / "macro" / "measure.py").is_file():
        sys.exit(f"no benchmarks in {options.folder}: it has no macro/measure.py; name another --folder")
    try:
        names = _chosen(options.workloads, workload_names(options.folder), "workload")
        workloads = [Workload(options.folder, name) for name in names]
    except ValueError as refusal:
        sys.exit(str(refusal))
    if options.list:
        for workload in workloads:
            print(f"{workload.name}: {workload.question}\n    {' '.join(workload.peers)}")
        return 0
    results = _measured(workloads, options)
    if options.json:
        results.write(options.json)
    if options.html:
        options.html.write_text(page_of(results), encoding="utf-8")
    print_results(results)
    return 130 if results.interrupted else 1 if results.failed else 0


def _measured(workloads: list[Workload], options: argparse.Namespace) -> Results:
    known = sorted({peer for workload in workloads for peer in workload.peers})
    try:
        peers = _chosen(options.peers, known, "peer")
    except ValueError as refusal:
        sys.exit(str(refusal))
    results = Results(
        date=datetime.now().astimezone().isoformat(timespec="seconds"),
        command=" ".join(["python -m benchmarks.compare", *sys.argv[1:]]),
        rounds=options.rounds,
        machine=machine(),
        versions=versions(),
    )
    # Measuring processes have sessions of their own and do not receive this signal. Exit normally, which ends them.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with TemporaryDirectory(prefix="vthreads-bench-") as built:
        choice = Choice(peers, options.size, options.operations, options.rounds, Path(built), options.limit)
        try:
            measure_all(workloads, choice, results)
        except KeyboardInterrupt:
            print("interrupted; this is what was measured until now", file=sys.stderr)
            results.interrupted = True
    return results


def _chosen(wanted: list[str] | None, known: list[str], what: str) -> list[str]:
    unknown = set(wanted or ()) - set(known)
    if unknown:
        raise ValueError(f"no such {what}: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return list(wanted or known)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=DESCRIPTION)
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help="what to measure (default: everything)")
    parser.add_argument("--list", action="store_true", help="list workloads and peers, measure nothing")
    parser.add_argument("--peers", nargs="+", metavar="PEER", help="the peers to measure (default: all)")
    parser.add_argument(
        "--rounds", type=_positive, default=5, metavar="N", help="measurements of each peer (%(default)s)"
    )
    parser.add_argument(
        "--size", type=_positive, nargs="+", metavar="N", help="threads or connections, one after another"
    )
    parser.add_argument(
        "--operations", type=_positive, metavar="N", help="operations of a measurement, if not the size"
    )
    parser.add_argument(
        "--limit", type=_positive, default=900, metavar="SECONDS", help="for one measurement (%(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write one page with plots; it opens without network")
    parser.add_argument(
        "--folder", type=Path, default=BENCHMARKS, metavar="DIR", help="the folder that contains `macro` (%(default)s)"
    )
    return parser
