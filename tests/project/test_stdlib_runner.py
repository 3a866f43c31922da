"""The runner of CPython's tests: it reports a failure, a crash or a hang of one test, and continues with the others."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

SAMPLE = """
import os, sys, time, unittest

ON_VTHREADS = "vthreads" in sys.modules

class Sample(unittest.TestCase):
    def test_a_passes(self):
        pass

    def test_b_fails_on_virtual_threads(self):
        self.assertFalse(ON_VTHREADS)

    def test_c_crashes_on_virtual_threads(self):
        if ON_VTHREADS:
            os._exit(3)

    def test_d_hangs_on_virtual_threads(self):
        while ON_VTHREADS:
            time.sleep(1)

    def test_e_fails_everywhere(self):
        self.fail("no matter where")


    def test_g_is_skipped(self):
        self.skipTest("for no reason")

    def test_h_passes_after_all_that(self):
        pass
"""


@pytest.mark.thorough
@pytest.mark.real
def test_each_test_has_its_outcome(tmp_path):
    (tmp_path / "sample_of_tests.py").write_text(SAMPLE)
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "tests.stdlib", "sample_of_tests", "--columns", "vthreads", "--path", tmp_path]
    command += ["--json", report, "--logs", tmp_path / "logs", "--test-limit", "3"]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert 1 == done.returncode, done.stderr
    told = json.loads(report.read_text())
    kinds = {
        column: {name.rpartition(".")[2]: outcome["kind"] for name, outcome in modules["sample_of_tests"].items()}
        for column, modules in told["columns"].items()
    }
    same = {
        "test_a_passes": "passed",
        "test_e_fails_everywhere": "failed",
        "test_g_is_skipped": "skipped",
        "test_h_passes_after_all_that": "passed",
    }
    assert same.items() <= kinds["plain"].items()
    assert same.items() <= kinds["vthreads"].items()
    deviating = {one["test"].rpartition(".")[2]: one["outcome"]["kind"] for one in told["deviations"]}
    assert {
        "test_b_fails_on_virtual_threads": "failed",
        "test_c_crashes_on_virtual_threads": "crashed",
        "test_d_hangs_on_virtual_threads": "hung",
    } == deviating
    # The end of the process counts like a test.
    assert {"passed": 3, "expected": 6} == told["totals"]["vthreads"]


def test_a_module_that_is_not_there_is_named():
    command = [sys.executable, "-m", "tests.stdlib", "test_of_the_day_after", "test_select"]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert 2 == done.returncode
    assert "this Python has no test module test_of_the_day_after" in done.stderr
