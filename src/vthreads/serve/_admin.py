"""The admin port: liveness, readiness, metrics as Prometheus text, and a dump of the virtual threads.

It is a WSGI application, which each worker serves at a shared listener. The answer covers all workers, because their
numbers are in shared memory; only `/dump` shows the worker that answers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from ..debug import dump
from ._board import BOUNDS, METRICS, Board, Metric

__all__ = ["admin_application", "metrics_text"]

PREFIX = "vthreads_serve_"
METHODS = "GET, HEAD"


def admin_application(board: Board, refresh: Callable[[], object]) -> Callable[..., list[bytes]]:
    """Return the application; `refresh` brings the row of this worker up to date before an answer."""

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        fields = [("Content-Type", "text/plain; version=0.0.4; charset=utf-8")]
        if environ["REQUEST_METHOD"] not in METHODS.split(", "):
            status, text = "405 Method Not Allowed", f"only {METHODS}\n"
            fields.append(("Allow", METHODS))
        else:
            refresh()
            status, text = _answer(board, environ["PATH_INFO"])
        start_response(status, fields)
        return [text.encode()]

    return application


def _answer(board: Board, path: str) -> tuple[str, str]:
    if path == "/live":
        return "200 OK", "live\n"
    if path == "/ready":
        return ("200 OK", "ready\n") if board.is_ready else ("503 Service Unavailable", "not ready\n")
    if path == "/metrics":
        return "200 OK", metrics_text(board)
    if path == "/dump":
        return "200 OK", dump()
    return "404 Not Found", "/live, /ready, /metrics or /dump\n"


def metrics_text(board: Board) -> str:
    """Return the metrics of all workers in the text format of Prometheus."""
    return "".join(f"{line}\n" for line in _lines(board))


def _lines(board: Board) -> Iterator[str]:
    for metric in METRICS:
        if metric.kind == "counter":
            name = f"{PREFIX}{metric.name}_total"
            yield from _begin(name, metric.kind, metric.help)
            for number, label in enumerate(metric.labels):
                total = sum(row.get(metric.name, number) for row in board.rows)
                yield f"{name}{{{label}}} {total:.17g}" if label else f"{name} {total:.17g}"
        elif metric.kind == "gauge":
            yield from _of_each_worker(board, metric)
    yield from _pinned(board)
    yield from _histogram(board)
    yield from _begin(f"{PREFIX}heartbeat_age_seconds", "gauge", "Time since the worker was in order.")
    now = time.monotonic()
    for row in board.alive():
        yield f'{PREFIX}heartbeat_age_seconds{{worker="{row.get("pid"):.0f}"}} {now - row.get("heartbeat"):.3f}'


def _pinned(board: Board) -> Iterator[str]:
    name = f"{PREFIX}pinned"
    yield from _begin(name, "gauge", "1 for a request that has kept its worker from all other work for 3 s.")
    for row in board.alive():
        if row.pinned_by:
            request, _, place = map(_label, row.pinned_by.partition("\n"))
            yield f'{name}{{worker="{row.get("pid"):.0f}",request="{request}",place="{place}"}} 1'


def _label(text: str) -> str:
    """Return `text` as the value of a label."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _of_each_worker(board: Board, metric: Metric) -> Iterator[str]:
    name = PREFIX + metric.name
    yield from _begin(name, metric.kind, metric.help)
    for row in board.alive():
        yield f'{name}{{worker="{row.get("pid"):.0f}"}} {row.get(metric.name):.17g}'


def _histogram(board: Board) -> Iterator[str]:
    name = f"{PREFIX}request_seconds"
    yield from _begin(name, "histogram", "From the head of a request to the end of its response.")
    count = 0.0
    for number, bound in enumerate((*map(str, BOUNDS), "+Inf")):
        count += sum(row.get("request_seconds_class", number) for row in board.rows)
        yield f'{name}_bucket{{le="{bound}"}} {count:.0f}'
    yield f"{name}_sum {sum(row.get('request_seconds_sum') for row in board.rows):.17g}"
    yield f"{name}_count {count:.0f}"


def _begin(name: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"
