"""Run CPython's own test modules on virtual threads, and compare test by test with plain Python.

    python -m tests.stdlib                                 every module, without gevent
    python -m tests.stdlib --quick                         a minute's worth of them
    python -m tests.stdlib test_socket test_ssl            these
    python -m tests.stdlib --columns plain,vthreads,gevent

Exit status 1: a test deviates and is not in the table of `known.py`, or one that is in the table passes now.
"""

import argparse
import json
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from . import columns as all_columns
from .compare import Comparison, stale
from .modules import ALL, QUICK, expanded
from .report import as_json, print_deviations, print_table
from .supervise import Job, Outcome, end_everything

# The largest modules take this long on a machine that does other things besides.
MODULE_LIMIT = 1800.0


def arguments_of(command_line):
    parser = argparse.ArgumentParser(
        prog="python -m tests.stdlib", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("modules", nargs="*", help="names of test modules; default: all that are listed in modules.py")
    parser.add_argument("--quick", action="store_true", help="the modules that are run before each change lands")
    parser.add_argument("--columns", default="plain,vthreads,threads", help=f"of {', '.join(all_columns.COLUMNS)}")
    parser.add_argument("--only", action="append", metavar="TEST", help="run only this test, by its full name")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("--test-limit", type=float, default=60.0, help="seconds after which a test hangs")
    parser.add_argument("--reuse", default="", metavar="COLUMNS", help="take what an earlier run in --logs found")
    parser.add_argument("--logs", type=Path, help="directory for output and outcomes of each module")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all outcomes to FILE")
    parser.add_argument("--path", action="append", default=[], help="directory in which modules are found as well")
    parser.add_argument("--brief", action="store_true", help="leave out the tracebacks of deviations")
    options = parser.parse_args(command_line)
    options.columns = ["plain", *(name for name in options.columns.split(",") if name != "plain")]
    unknown = set(options.columns) - set(all_columns.COLUMNS)
    if unknown:
        parser.error(f"no such column: {', '.join(unknown)}")
    sys.path += options.path
    absent = [name for name in options.modules if not expanded([name])]
    if absent:
        parser.error(f"this Python has no test module {', '.join(absent)}")
    options.logs = options.logs or all_columns.ROOT / "build" / "stdlib-{}.{}".format(*sys.version_info)
    return options


class Runs:
    """The outcomes of modules in columns, found out once each."""

    def __init__(self, options):
        self._options = options
        self._reuse = options.reuse.split(",")

    def first(self, module, column):
        """Run the module, or take what an earlier run has found."""
        log = self._options.logs / f"{module}.{column}.log"
        kept = log.with_suffix(".json")
        if column in self._reuse and kept.exists():
            return {name: Outcome(**fields) for name, fields in json.loads(kept.read_text()).items()}
        outcomes = self._run(module, column, log, self._options.only)
        if not self._options.only:
            kept.write_text(json.dumps({name: asdict(outcome) for name, outcome in outcomes.items()}))
        told = ", ".join(f"{count} {kind}" for kind, count in counted(outcomes).items())
        print(f"{module} {column}: {told or 'no tests'}", flush=True)
        return outcomes

    def again(self, module, column, names):
        """Run these tests, without the rest of their module."""
        return self._run(module, column, self._options.logs / f"{module}.{column}.again.log", names)

    def _run(self, module, column, log, only):
        limit, path = self._options.test_limit, [str(Path(one).resolve()) for one in self._options.path]
        return Job(module, column, log, limit, MODULE_LIMIT, only, path).run()


def counted(outcomes):
    counts = {}
    for outcome in outcomes.values():
        counts[outcome.kind] = counts.get(outcome.kind, 0) + 1
    return counts


def compared(runs, module, column, plain):
    one = Comparison(module, column, plain, runs.first(module, column))
    names = [deviation.name for deviation in one.unexplained]
    if names:
        one.confirm(runs.again(module, "plain", names), runs.again(module, column, names))
    return one


def end_with_everything(signum, _):
    end_everything()
    os._exit(128 + signum)


def main(command_line):
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, end_with_everything)
    options = arguments_of(command_line)
    columns = list(options.columns)
    for column in options.columns:
        reason = all_columns.missing(column)
        if reason:
            print(f"{column} is left out: {reason}")
            columns.remove(column)
        else:
            # Before two modules need it at the same time.
            all_columns.interpreter_for(column)
    runs = Runs(options)
    modules = expanded(options.modules or (QUICK if options.quick else ALL))
    with ThreadPoolExecutor(options.jobs) as pool:
        plain = dict(zip(modules, pool.map(runs.first, modules, ["plain"] * len(modules)), strict=True))
        wanted = [(module, column) for module in modules for column in columns if column != "plain"]
        comparisons = list(pool.map(lambda place: compared(runs, *place, plain[place[0]]), wanted))
    print_deviations(comparisons, details=not options.brief)
    print_table(plain, comparisons, columns)
    if options.json:
        options.json.write_text(as_json(plain, comparisons))
    faults = sum(len(one.faults) for one in comparisons)
    print(f"\n{faults} deviations that are not in the table, {len(stale(comparisons))} entries too many in it")
    return 1 if faults or stale(comparisons) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
