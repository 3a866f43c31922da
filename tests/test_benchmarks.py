"""Every benchmark runs once, and does as much as it says."""

import importlib.util
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def load(name):
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


micro = load("micro")


@pytest.mark.parametrize("name", micro.BENCHMARKS)
def test_each_small_benchmark_does_what_it_counts(name):
    function, _ = micro.BENCHMARKS[name]
    assert micro.cpu_seconds(7, function, 1) >= 0


def test_parked_threads_are_counted():
    figures = load("parked").measure
    import vthreads

    assert vthreads.run(figures, 10, patch=False)["seconds to make"] > 0
