"""Where the benchmarks are: beside the package in a checkout, under the prefix of an installation."""

from __future__ import annotations

import sysconfig
from pathlib import Path

__all__ = ["NoBenchmarks", "found_folder"]

CHECKOUT = Path(__file__).parents[4] / "benchmarks"
INSTALLED = Path(sysconfig.get_path("data"), "share", "vthreads", "benchmarks")


class NoBenchmarks(Exception):
    """There is no folder with benchmarks; the message says where one was looked for, and where to get it."""


def found_folder(wanted: Path | None) -> Path:
    """The folder that has `macro` in it: the one that is asked for, or else the first that is there."""
    candidates = [CHECKOUT, INSTALLED] if wanted is None else [wanted]
    for candidate in candidates:
        if (candidate / "macro" / "measure.py").is_file():
            return candidate.resolve()
    raise NoBenchmarks(
        f"no benchmarks in {' or '.join(map(str, candidates))}; they are the folder `benchmarks` of the source "
        "distribution (pip download --no-binary vthreads --no-deps vthreads): unpack it, and name it by --folder"
    )
