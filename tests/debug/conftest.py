"""Programs in separate processes, and the answers that another process gets about them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator


class Program:
    """A script that runs in a separate process, and prints a line when there is something to inspect."""

    def __init__(self, script, directory, environment):
        self.environment = {**os.environ, "PYTHONUNBUFFERED": "1", "XDG_RUNTIME_DIR": str(directory), **environment}
        (directory / "program.py").write_text(textwrap.dedent(script))
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", str(directory / "program.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
        )
        self.pid = self.process.pid

    def line(self):
        """The next line that it prints."""
        return self.process.stdout.readline().strip()

    def look(self, command, *arguments):
        """What `python -m vthreads COMMAND PID` prints; it has to succeed."""
        done = self.try_to_look(command, *arguments)
        assert (0, "") == (done.returncode, done.stderr)
        return done.stdout

    def try_to_look(self, command, *arguments, pid=None):
        return subprocess.run(
            [sys.executable, "-m", "vthreads", command, str(pid or self.pid), *arguments],
            check=False,
            capture_output=True,
            text=True,
            timeout=200,
            env=self.environment,
        )

    def finish(self, line=""):
        """Let it read a line, and wait for its end: status, and the rest of its output and errors."""
        out, err = self.process.communicate(line + "\n", timeout=200)
        return self.process.returncode, out, err


@pytest.fixture(scope="session")
def dump_schema():
    """The expected JSON of a dump."""
    schema = Path(__file__).parents[2] / "docs" / "reference" / "dump.schema.json"
    return Draft202012Validator(json.loads(schema.read_text()))


@pytest.fixture
def start(tmp_path):
    """Start a script with these environment variables; ended with the test, whatever comes."""
    programs = []
    tmp_path.chmod(0o700)

    def start(script, **environment):
        programs.append(Program(script, tmp_path, environment))
        return programs[-1]

    yield start
    for program in programs:
        if program.process.poll() is None:
            program.process.send_signal(signal.SIGKILL)
        program.process.communicate()
