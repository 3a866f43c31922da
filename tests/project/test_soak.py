"""A few seconds of the mixed program; `python -m tests.soak` runs it for a minute."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("seed", [1, 2])
def test_os_threads_virtual_threads_processes_and_a_loop_lose_nothing_to_cancellations(seed):
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak", "--seconds", "2", "--seed", str(seed)],
        check=False, capture_output=True, text=True, timeout=100, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert (0, "") == (done.returncode, done.stderr), done.stdout


@pytest.mark.parametrize("seconds", [1, pytest.param(20, marks=pytest.mark.thorough)])
def test_several_carriers_lose_nothing_to_cancellations(seconds):
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak", "--seconds", str(seconds), "--carriers", "4"],
        check=False, capture_output=True, text=True, timeout=seconds + 100, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert (0, "") == (done.returncode, done.stderr), done.stdout
