"""Run one test module in one column, in a separate process that is restarted after a test that hangs or crashes.

A test that has not ended after `test_limit` seconds hangs. The stacks of the process are in the log then.
"""

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from .columns import ROOT, interpreter_for, path_for
from .modules import LEFT_OUT, RESOURCES

__all__ = ["Job", "Outcome", "Outcomes", "end_everything"]

HERE = Path(__file__).resolve().parent
GUARD = HERE.parent / "loopback_only"
# In the environment of a run and of all it starts, so that what has left its process group is found as well.
MARK = "STDLIB_TEST_RUN"
PAUSE = 0.1
# For the stacks to be written.
LAST_WORDS = 3.0
# The processes under way, each with its mark.
RUNNING = {}


@dataclass(frozen=True)
class Outcome:
    """How a test ended: "passed", "skipped", "failed", "error", "hung", "crashed" or "not run", and what it said."""

    kind: str
    detail: str = ""
    seconds: float = 0.0

    @property
    def passed(self):
        return self.kind == "passed"


Outcomes = dict[str, Outcome]


@dataclass
class Job:
    """One module in one column; with `only`, some of its tests."""

    module: str
    column: str
    log: Path
    test_limit: float
    module_limit: float
    only: list[str] | None = None
    path: list[str] = field(default_factory=list)

    def run(self) -> Outcomes:
        outcomes: Outcomes = {}
        deadline = time.monotonic() + self.module_limit
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.write_bytes(b"")
        while True:
            before = len(outcomes)
            with _scratch() as scratch:
                ending, fixtures = self._run_once(scratch, outcomes, deadline)
            if ending is None or len(outcomes) == before or "(import)" in outcomes:
                break
            if time.monotonic() >= deadline:
                break
        for name, outcome in fixtures.items():
            outcomes.setdefault(name, outcome)
        return outcomes

    def _run_once(self, scratch, outcomes, deadline):
        """Run what has no outcome yet; how it ended if not by itself, and the failures outside tests."""
        journal = scratch / "journal"
        journal.touch()
        options = {
            "module": self.module,
            "column": self.column,
            "journal": str(journal),
            "done": list(outcomes),
            "only": self.only,
            "left_out": LEFT_OUT,
            "resources": RESOURCES.get(self.module, []),
            "path": path_for(self.column) + self.path,
        }
        mark = secrets.token_hex(8)
        cwd = scratch / "cwd"
        cwd.mkdir()
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [interpreter_for(self.column), HERE / "child.py", json.dumps(options)],
                cwd=cwd, env=_environment(scratch, mark), start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
            RUNNING[process] = mark
            try:
                ending = self._watch(process, journal, deadline)
            finally:
                _end_all(process, mark)
                del RUNNING[process]
        return ending, _read(journal, ending, outcomes)

    def _watch(self, process, journal, deadline):
        """Wait for the process; what ended it: None (itself, well), "hung" or "crashed"."""
        size, since = 0, time.monotonic()
        while process.poll() is None:
            time.sleep(PAUSE)
            now, grown = time.monotonic(), journal.stat().st_size
            if grown != size:
                size, since = grown, now
            elif now - since > self.test_limit or now > deadline:
                process.send_signal(signal.SIGABRT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(LAST_WORDS)
                return "hung"
        return "crashed" if process.returncode else None


def _read(journal, ending, outcomes):
    """Add what the journal says to `outcomes`; a test without an end has the `ending` of the process."""
    fixtures, started = {}, None
    for line in journal.read_text(errors="backslashreplace").splitlines():
        entry = json.loads(line)
        if "fixture" in entry:
            fixtures[entry["fixture"]] = Outcome(entry["outcome"], entry["detail"])
        elif "start" in entry:
            started = entry["start"]
        else:
            started = None
            if entry["end"] != "(import)" or entry["outcome"] != "passed":
                outcomes[entry["end"]] = Outcome(entry["outcome"], entry["detail"], entry["seconds"])
    if started == "(exit)" and ending is None:
        outcomes[started] = Outcome("passed")
    elif ending is not None:
        outcomes[started or "(between tests)"] = Outcome(ending)
    return fixtures


def _environment(scratch, mark):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VTHREADS_"))}
    return {**kept, "PYTHONPATH": str(GUARD), "TMPDIR": str(scratch), MARK: mark}


@contextlib.contextmanager
def _scratch():
    # A short name: paths of Unix sockets that tests make below it are limited to some 100 characters.
    path = Path(tempfile.mkdtemp(prefix="vt-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def end_everything():
    """Whatever is under way ends now: so does this process."""
    for process, mark in list(RUNNING.items()):
        _end_all(process, mark)


def _end_all(process, mark):
    """Nothing that the run has started outlives it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    wanted = f"{MARK}={mark}".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            marked = wanted in (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if marked:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(entry.name), signal.SIGKILL)


assert GUARD.is_dir(), f"{GUARD.relative_to(ROOT)} is gone, and without it tests would leave this machine"
