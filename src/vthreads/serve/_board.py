"""The numbers of all workers, in memory that they share: counters, gauges, the heartbeat. No output format.

Each worker has a row, which only it writes, so an update needs no lock: a number of 8 bytes is written at once. The
parent gives the row of a worker that has ended to a later one. Counters continue there, so that their sum never falls;
gauges begin at 0.

A scrape answered by any worker so shows all of them, also one that is pinned and cannot answer itself.
"""

from __future__ import annotations

import mmap
from bisect import bisect_left
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["BOUNDS", "METRICS", "Board", "Metric", "Row"]

# Upper bounds of the histogram of durations, in seconds; one more class has none.
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
# Why a request was refused or cancelled.
REASONS = ("malformed", "too_large", "too_slow", "in_flight", "age", "deadline", "client_gone")


class Metric(NamedTuple):
    """A number of each worker, or several with different labels."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ("",)


METRICS = (
    Metric("pid", "internal", "The process; 0: the row is free."),
    Metric("is_ready", "internal", "1 while the worker accepts connections."),
    Metric("heartbeat", "internal", "The time of the monotonic clock at which the worker was in order."),
    Metric("requests_in_flight", "gauge", "Requests that are handled now."),
    Metric("connections", "gauge", "Open connections."),
    Metric("virtual_threads_parked", "gauge", "Virtual threads that wait."),
    Metric("late_handlers", "gauge", "Handlers that have not ended after their cancellation."),
    Metric("run_queue_delay_seconds", "gauge", "How late a ready virtual thread ran, in the last second."),
    Metric("resident_memory_bytes", "gauge", "Memory of the worker."),
    Metric(
        "responses",
        "counter",
        "Responses by class of their status.",
        tuple(f'class="{number}xx"' for number in range(1, 6)),
    ),
    Metric(
        "refused",
        "counter",
        "Requests that the server has refused or cancelled.",
        tuple(f'reason="{reason}"' for reason in REASONS),
    ),
    Metric("failures", "counter", "Requests whose handler has failed."),
    Metric("stalls", "counter", "Times that a handler has kept the worker from all other work for 3 s."),
    Metric("sent_bytes", "counter", "Bytes of responses."),
    Metric("access_log_dropped", "counter", "Lines of the access log that were dropped."),
    Metric("request_seconds_class", "internal", "Histogram of durations.", tuple(map(str, range(len(BOUNDS) + 1)))),
    Metric("request_seconds_sum", "internal", "The sum of all durations."),
)

FIRST: dict[str, int] = {}
WIDTH = 0
for _metric in METRICS:
    FIRST[_metric.name] = WIDTH
    WIDTH += len(_metric.labels)
# Bytes of a row for what pins its worker, with 2 bytes for the size.
TEXT_WIDTH = 512
GAUGES = [FIRST[metric.name] for metric in METRICS if metric.kind == "gauge"]

IN_FLIGHT, CONNECTIONS = FIRST["requests_in_flight"], FIRST["connections"]
RESPONSES = FIRST["responses"] - 1
REFUSED = {reason: FIRST["refused"] + n for n, reason in enumerate(REASONS)}
CLASSES = FIRST["request_seconds_class"]
SUM = FIRST["request_seconds_sum"]
SENT = FIRST["sent_bytes"]


class Row:
    """The numbers of one worker."""

    __slots__ = ("_numbers", "_text")

    def __init__(self, numbers: memoryview[float], text: memoryview[int]) -> None:
        self._numbers = numbers
        self._text = text

    @property
    def pinned_by(self) -> str:
        """The request and the place that keep the worker from all other work, a line each; "": nothing does."""
        text = self._text
        return bytes(text[2 : 2 + int.from_bytes(text[:2])]).decode(errors="ignore")

    @pinned_by.setter
    def pinned_by(self, value: str) -> None:
        data = value.encode()[: TEXT_WIDTH - 2]
        text = self._text
        # A reader in another process sees no text while it changes.
        text[:2] = bytes(2)
        text[2 : 2 + len(data)] = data
        text[:2] = len(data).to_bytes(2)

    def get(self, name: str, label: int = 0) -> float:
        """Return a number."""
        return self._numbers[FIRST[name] + label]

    def set(self, name: str, value: float) -> None:
        """Set a number."""
        self._numbers[FIRST[name]] = value

    def add(self, name: str, value: float = 1) -> None:
        """Add to a number."""
        self._numbers[FIRST[name]] += value

    def refused(self, reason: str) -> None:
        """Count a request that was refused."""
        self._numbers[REFUSED[reason]] += 1

    def answered(self, status: int, seconds: float, sent: int) -> None:
        """Count a response."""
        if status:
            # RFC 9110, 15: a client handles a status beyond 599 like one of 5xx.
            self._numbers[RESPONSES + min(status // 100, 5)] += 1
        self._numbers[CLASSES + bisect_left(BOUNDS, seconds)] += 1
        self._numbers[SUM] += seconds
        self._numbers[SENT] += sent

    def begin(self, pid: int, at: float) -> None:
        """Begin a new worker in this row."""
        self.clear()
        self.set("heartbeat", at)
        self.set("pid", pid)

    def clear(self) -> None:
        """Handle that the worker has ended: its counters stay."""
        for number in (FIRST["pid"], FIRST["is_ready"], *GAUGES):
            self._numbers[number] = 0.0
        self.pinned_by = ""


class Board:
    """The rows of `size` workers. Processes that are forked share it."""

    def __init__(self, size: int) -> None:
        end = 8 * (1 + size * WIDTH)
        memory = memoryview(mmap.mmap(-1, end + size * TEXT_WIDTH))
        numbers, texts = memory[:end].cast("d"), memory[end:]
        self._stopping = numbers[:1]
        self.rows = [
            Row(numbers[1 + n * WIDTH : 1 + (n + 1) * WIDTH], texts[n * TEXT_WIDTH : (n + 1) * TEXT_WIDTH])
            for n in range(size)
        ]

    @property
    def is_stopping(self) -> bool:
        """Whether all workers stop."""
        return bool(self._stopping[0])

    def stop(self) -> None:
        """Show that all workers stop. Not a checkpoint; may be called by a signal handler."""
        self._stopping[0] = 1.0

    @property
    def is_ready(self) -> bool:
        """Whether a worker accepts connections and will go on."""
        return not self.is_stopping and any(row.get("is_ready") for row in self.alive())

    def alive(self) -> Iterator[Row]:
        """Return the rows of workers that run."""
        return (row for row in self.rows if row.get("pid"))

    def free_row(self) -> Row:
        """Return a row without a worker.

        Raises:
            RuntimeError: there is none.
        """
        for row in self.rows:
            if not row.get("pid"):
                return row
        raise RuntimeError(f"all {len(self.rows)} rows are in use; the parent must start fewer workers")
