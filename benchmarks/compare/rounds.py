"""The measurements: in each round every peer, each in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from .results import Results, Row, Without
from .workloads import Peer, Workload

__all__ = ["Choice", "measure_all"]


class Choice(NamedTuple):
    """The selection to measure.

    Attributes:
        peers: names of peers; a workload skips those that it does not have.
        sizes, operations: None: the defaults of the workload.
        rounds: number of measurements of each peer.
        built: folder for compiled programs.
        limit: seconds for one measurement.
    """

    peers: list[str]
    sizes: list[int] | None
    operations: int | None
    rounds: int
    built: Path
    limit: float


class MeasurementFailed(Exception):
    """A measuring process ended with an error; the message is the end of its output."""


def measure_all(workloads: list[Workload], choice: Choice, results: Results) -> None:
    """Measure the selection and add each figure to `results`."""
    for workload in workloads:
        for size in choice.sizes or workload.sizes:
            _measure(workload, size, choice, results)


def _measure(workload: Workload, size: int, choice: Choice, results: Results) -> None:
    peers = [name for name in choice.peers if name in workload.peers]
    for number in range(1, choice.rounds + 1):
        for name in list(peers):
            place = f"{workload.name}, {size:,} {workload.size_word}, {name}"
            print(f"round {number} of {choice.rounds}: {place}", file=sys.stderr, flush=True)
            try:
                answer = _answer(workload, workload.peers[name], size, choice)
            except MeasurementFailed as failure:
                results.failed.append(Without(workload.name, size, name, str(failure)))
                peers.remove(name)
                continue
            if "left_out" in answer:
                results.left_out.append(Without(workload.name, size, name, answer["left_out"]))
                peers.remove(name)
                continue
            for figure, value in answer["figures"].items():
                row = Row(
                    workload.name, size, workload.size_word, figure, workload.figures[figure], name, answer["size"]
                )
                results.add(row, value)


def _answer(workload: Workload, peer: Peer, size: int, choice: Choice) -> dict[str, Any]:
    numbers = [size] if choice.operations is None else [size, choice.operations]
    command = [sys.executable, "-P", "-m", "macro.measure", workload.name, peer.module, *map(str, numbers)]
    environment = {**os.environ, **peer.environment}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(workload.folder), os.environ.get("PYTHONPATH")]))
    environment["VTHREADS_BENCH_BUILD"] = str(choice.built)
    # A session of its own, so that its child processes can be killed with it.
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        printed, complaints = process.communicate(timeout=choice.limit)
    except subprocess.TimeoutExpired:
        raise MeasurementFailed(f"no figure after {choice.limit} seconds") from None
    finally:
        _end(process)
    if process.returncode:
        raise MeasurementFailed(_reason(process.returncode, complaints))
    answer: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return answer


def _end(process: subprocess.Popen[str]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        # It has ended with all its child processes: the usual case.
        pass
    process.communicate()


def _reason(status: int, complaints: str) -> str:
    if status < 0:
        return f"ended by {signal.Signals(-status).name}"
    return complaints.strip().rpartition("\n")[2] or f"ended with status {status}"
