"""The heartbeat of a worker: once a second it records that the worker is in order, and its gauges.

In order means: the scheduler runs this thread, and no handler has ignored the end of its deadline. A worker that is
pinned, or that has a handler that swallows its cancellation, has no heartbeat; its parent or systemd replaces it. Both
are logged: a pinned worker by an OS thread, with the request and the stack of the handler.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from math import inf
from typing import Any

from .._core.runtime import now
from .._timeouts import sleep
from ..debug import Stall, metrics
from ..debug._stalls import StallMonitor
from ._deadlines import CLEANUP_SECONDS, request_scope_of
from ._server import Server
from ._sight import Sight

__all__ = ["Heart"]

log = logging.getLogger("vthreads.serve")

BETWEEN_BEATS = 1.0
# Seconds without a switch after which the handler that runs is logged.
PINNED_AFTER = 3.0
# Seconds beyond deadline and cleanup that a handler may take.
SLACK = 5.0
# Seconds until a worker asks again for its replacement, if the first one has failed to start.
ASKED_AGAIN_AFTER = 60.0


class Heart:
    """Records the state of `server`.

    Args:
        server: the server of the worker.
        sight: the records of its requests.
        beat: called after each beat.
        max_requests: number of requests after which the worker asks for its replacement; `inf`: never.
        max_rss: bytes of memory after which it does.
        recycle: asks for the replacement.
    """

    def __init__(
        self,
        server: Server,
        sight: Sight,
        *,
        beat: Callable[[], object],
        max_requests: float = inf,
        max_rss: float = inf,
        recycle: Callable[[], object],
    ) -> None:
        self._server = server
        self._sight = sight
        self._beat = beat
        self._max_requests = max_requests
        self._max_rss = max_rss
        self._recycle = recycle
        self._ask_at = -inf
        # Handlers that have not ended after their cancellation, as of the last beat.
        self._late: list[Any] = []

    def run(self) -> None:
        """Beat until the thread is cancelled (the body of a thread)."""
        monitor = StallMonitor(PINNED_AFTER, self._report_stall, once_a_place=False)
        with monitor:
            monitor.start()
            while True:
                before = now()
                sleep(BETWEEN_BEATS)
                self._sight.row.pinned_by = ""
                self._sight.row.set("run_queue_delay_seconds", max(now() - before - BETWEEN_BEATS, 0.0))
                self.refresh()
                if not self._late:
                    self._sight.row.set("heartbeat", time.monotonic())
                    self._beat()
                self._recycle_if_due()

    def _report_stall(self, stall: Stall) -> None:
        """Log a handler that pins the worker (called on an OS thread)."""
        exchange = self._pinning_exchange()
        what = "no request" if exchange is None else str(exchange)
        last = stall.stack[-1]
        self._sight.row.add("stalls")
        self._sight.row.pinned_by = f"{what}\n{last.filename}:{last.lineno} in {last.name}"
        about = {} if exchange is None else {"request_id": exchange.request_id}
        log.error("%s pins the worker: %s", what, stall, extra=about)

    def _pinning_exchange(self) -> Any:
        """Return the exchange of the request for which the worker runs now; None: for none."""
        thread = self._server._scheduler.running
        scope = None if thread is None else request_scope_of(thread)
        exchanges = [] if scope is None else self._exchanges()
        return next((each for each in exchanges if each is not None and each.scope is scope), None)

    def refresh(self) -> None:
        """Bring the gauges up to date. Not a checkpoint."""
        row, server = self._sight.row, self._server
        row.set("is_ready", not server.is_stopping)
        row.set("connections", server.open_connections)
        row.set("requests_in_flight", sum(exchange is not None for exchange in self._exchanges()))
        row.set("virtual_threads_parked", sum(carrier.threads["parked"] for carrier in metrics().carriers))
        row.set("resident_memory_bytes", _resident_bytes())
        self._sight.count_dropped()
        self._find_late()
        row.set("late_handlers", len(self._late))

    def _exchanges(self) -> list[Any]:
        return [getattr(connection, "_exchange", None) for connection in list(self._server._connections)]

    def _find_late(self) -> None:
        last = now() - CLEANUP_SECONDS - SLACK
        late = [exchange for exchange in self._exchanges() if exchange is not None and exchange.scope.deadline < last]
        for exchange in late:
            if exchange not in self._late:
                log.error(
                    "%s has not ended since its cancellation; its handler must let vthreads.Cancelled pass",
                    exchange,
                    extra={"request_id": exchange.request_id},
                )
        self._late = late

    def _recycle_if_due(self) -> None:
        is_due = self._sight.ended_requests >= self._max_requests or _resident_bytes() >= self._max_rss
        if is_due and not self._server.is_stopping and now() >= self._ask_at:
            self._ask_at = now() + ASKED_AGAIN_AFTER
            self._recycle()


def _resident_bytes() -> int:
    try:
        with open("/proc/self/statm", "rb", buffering=0) as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        # Not Linux. The metric is 0, and `max_rss` has no effect.
        return 0
