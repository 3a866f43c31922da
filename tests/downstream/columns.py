"""Run a suite, plain or on virtual threads, and collect the outcome of each test."""

from __future__ import annotations

import fnmatch
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .environments import PLUGINS, Place
from .suites import Suite

__all__ = ["PLAIN", "VIRTUAL", "Column", "Run", "reason_for", "run"]

# Seconds for one test and for one run.
TEST_LIMIT, RUN_LIMIT = 60, 1200


class Column(NamedTuple):
    """One way to run a suite, by what stands between the interpreter and pytest's arguments."""

    name: str
    command: tuple[str, ...]


PLAIN = Column("plain", ("-m", "pytest"))
VIRTUAL = Column("vthreads", (str(PLUGINS / "on_virtual_threads.py"),))


class Run(NamedTuple):
    """What came out.

    Attributes:
        outcomes: by test: passed, failed, error, skipped; or "hung" for the one in which the run was stopped.
        tail: the last lines that pytest printed.
    """

    outcomes: dict[str, str]
    tail: str

    def count(self, outcome: str) -> int:
        """How many tests came out so."""
        return sum(found == outcome for found in self.outcomes.values())


def run(place: Place, suite: Suite, column: Column, tests: Sequence[str]) -> Run:
    """Run `tests` of a suite in its environment."""
    directory = place.python.parents[2]
    log = directory / f"{column.name}.log"
    log.unlink(missing_ok=True)
    options = ["-p", "record", "-q", "--tb=short", f"--timeout={TEST_LIMIT}", "-o", f"cache_dir={directory / 'cache'}"]
    command = [str(place.python), *column.command, *options, *suite.options, *_left_out(suite), *tests]
    printed = directory / f"{column.name}.txt"
    with printed.open("w") as output:
        process = subprocess.Popen(
            command, cwd=place.source, env=place.environment(suite, log), stdin=subprocess.DEVNULL,
            stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            process.wait(RUN_LIMIT)
        except subprocess.TimeoutExpired:
            pass
        finally:
            _end_all_of(process)
    return Run(_outcomes(log), "\n".join(printed.read_text(errors="replace").splitlines()[-15:]))


def _left_out(suite: Suite) -> list[str]:
    return [f"--ignore-glob={pattern}" for pattern in suite.left_out]


def _end_all_of(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def _outcomes(log: Path) -> dict[str, str]:
    outcomes: dict[str, str] = {}
    for line in log.read_text().splitlines() if log.exists() else ():
        what, _, test = line.partition("\t")
        # A test that passed and then failed to clean up is an error; one that began and said no more hung.
        outcomes[test] = "hung" if what == "started" else what
    return outcomes


def reason_for(test: str, table: dict[str, str]) -> str | None:
    """The entry of the table for a test."""
    for pattern, reason in table.items():
        # Its brackets are the parameters of a test.
        if fnmatch.fnmatchcase(test, pattern.replace("[", "[[]")):
            return reason
    return None
