"""Some seconds of the soak of a server; `make soak-serve` runs it for a minute."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.real
@pytest.mark.thorough
def test_a_server_under_load_and_abuse_keeps_nothing():
    done = subprocess.run(
        [sys.executable, "-m", "tests.serve.soak", "--seconds", "15"],
        check=False,
        capture_output=True,
        text=True,
        timeout=250,
        cwd=Path(__file__).parents[2],
    )
    assert (0, "") == (done.returncode, done.stderr), done.stdout
