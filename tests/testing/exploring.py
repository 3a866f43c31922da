"""What the tests of `explore` share: known races, the strategies, and the failure of an exploration."""

import importlib
import importlib.util
from pathlib import Path

import pytest

from vthreads.testing import ScheduleFailed, explore

STRATEGIES = ["random", *(pytest.param(strategy, marks=pytest.mark.thorough) for strategy in ("pct", "exhaustive"))]


def load_races():
    path = Path(__file__).parents[2] / "benchmarks" / "races.py"
    spec = importlib.util.spec_from_file_location("races", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


races = load_races()
run_threads = races.run_threads


def failure_of(fn, **options):
    with pytest.raises(ScheduleFailed) as caught:
        explore(fn, **{"seed": 1, **options})
    return caught.value
