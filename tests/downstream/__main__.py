"""Run the test suites of other projects on plain Python and on virtual threads, and compare them test by test.

    python -m tests.downstream [suite ...] [--quick] [--checkout psycopg=DIR]

What comes out differently is run once more, both ways; what differs again and stands in no table makes it fail.
"""

from __future__ import annotations

import argparse
import socket
import sys
import time
from collections import Counter
from pathlib import Path

from . import columns
from .columns import PLAIN, VIRTUAL, Run, reason_for
from .environments import ROOT, prepare
from .suites import SUITES, Suite


def main() -> int:
    """Run, print, and return status 1 if a difference has no known reason."""
    options = _options()
    checkouts = {name: Path(directory).resolve() for name, _, directory in (c.partition("=") for c in options.checkout)}
    names = options.suite or [name for name, suite in SUITES.items() if suite.quick or not options.quick]
    summary, failed = [], False
    for name in names:
        suite = SUITES[name]
        missing = _missing(suite, checkouts.get(name))
        if missing:
            summary.append(f"{name:10} left out: {missing}")
            continue
        place = prepare(name, suite, options.cache, checkouts.get(name))
        line, fails = _compare(name, suite, place, suite.quick if options.quick else suite.tests)
        summary.append(line)
        failed = failed or fails
    print("\n" + "\n".join(summary))
    return int(failed)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.downstream", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("suite", nargs="*", choices=[*SUITES, []], help="all that can be run, if none is named")
    parser.add_argument("--quick", action="store_true", help="a part of some suites")
    parser.add_argument("--checkout", action="append", default=[], metavar="SUITE=DIR", help="tests from a checkout")
    parser.add_argument("--cache", type=Path, default=ROOT / ".downstream", help="where all that is kept")
    return parser.parse_args()


def _missing(suite: Suite, checkout: Path | None) -> str | None:
    if suite.in_checkout_only and checkout is None:
        return "its source distribution has no tests; name a checkout with --checkout"
    if suite.port is not None:
        try:
            socket.create_connection(("127.0.0.1", suite.port), timeout=5).close()
        except OSError:
            return f"no server on 127.0.0.1:{suite.port}"
    return None


def _compare(name: str, suite: Suite, place, tests: list[str]) -> tuple[str, bool]:
    started = time.monotonic()
    runs = {column: columns.run(place, suite, column, tests) for column in (PLAIN, VIRTUAL)}
    plain, virtual = runs[PLAIN], runs[VIRTUAL]
    differing = _differing(plain, virtual)
    if differing and len(differing) <= 200:
        again = {column: columns.run(place, suite, column, differing) for column in (PLAIN, VIRTUAL)}
        differing = _differing(again[PLAIN], again[VIRTUAL])
    reasons = Counter()
    for test in differing:
        reason = reason_for(test, suite.deviations)
        reasons[reason] += 1
        if reason is None:
            print(f"{name}: {test}: {plain.outcomes[test]} plainly, {virtual.outcomes.get(test)} on virtual threads")
    unexplained = reasons.pop(None, 0)
    for reason, count in reasons.items():
        print(f"{name}: {count} differ: {reason}")
    nothing = not plain.count("passed")
    if nothing or unexplained:
        print(f"{name}, plainly:\n{plain.tail}\n{name}, on virtual threads:\n{virtual.tail}")
    line = (
        f"{name:10} {plain.count('passed'):5} passed plainly, {virtual.count('passed'):5} on virtual threads, "
        f"{len(differing)} differ, {unexplained} for no known reason; "
        f"{plain.count('failed') + plain.count('error')} fail plainly, {plain.count('skipped')} skipped "
        f"({time.monotonic() - started:.0f} s)"
    )
    return line, bool(nothing or unexplained)


def _differing(plain: Run, virtual: Run) -> list[str]:
    """Return tests whose outcome differs from plain Python; tests that fail on plain Python are left out."""
    return [
        test
        for test, outcome in plain.outcomes.items()
        if outcome in ("passed", "skipped") and virtual.outcomes.get(test) != outcome
    ]


if __name__ == "__main__":
    sys.exit(main())
