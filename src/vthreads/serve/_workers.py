"""Worker processes that share listeners: start, replace, reload, stop. It does not depend on what a worker serves.

    STARTING ──ready──> READY ──SIGTERM──> STOPPING ──exit──> reaped
        │                └──exit: replaced, after a pause if it lived shortly; not if its successor is STARTING
        └──exit: the first workers: the server ends; a successor: the reload is given up; others: as from READY

The parent runs no virtual threads and serves nothing, so that nothing of a request can hold it up. It waits in one
`select` for signals, by the wakeup descriptor, and for workers: each writes a byte to its pipe when it serves. The pipe
in the other direction ends with the parent, and a worker whose parent has gone stops as after SIGTERM. An OS thread of
the worker watches it, so that a handler that pins the worker cannot keep it.

A reload replaces one worker at a time, each only after its successor serves. A successor that fails ends the reload:
the old workers stay. Each process has a row of the board until it has ended, so workers that take long to stop bound
the number of processes: a replacement waits until a row is free. Rows of workers that are missing are kept for them.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from typing import NamedTuple, NoReturn

from .._core.carrier_end import finish_process
from ._board import Board, Row
from ._outputs import finish_outputs, flush_outputs

__all__ = ["Supervisor", "WorkerPipes"]

log = logging.getLogger("vthreads.serve")

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
# A worker that ended earlier is replaced after a pause, which doubles up to the longest one.
SHORT_LIFE = 5.0
SHORTEST_PAUSE, LONGEST_PAUSE = 0.1, 10.0
# Seconds after the last such start from which the pauses begin with the shortest one again.
FORGOTTEN_AFTER = 3 * SHORT_LIFE
# Seconds beyond its own time that a worker may take to stop; then it is killed.
KILLED_AFTER = 10.0
# Seconds between SIGABRT, at which a worker without a heartbeat writes its stacks, and SIGKILL.
STACKS_SECONDS = 2.0
BETWEEN_CHECKS = 1.0
# Seconds after which a worker that does not serve yet is reported: an import that waits forever stops a reload.
SLOW_START = 30.0


class WorkerPipes(NamedTuple):
    """The descriptors and the row of a worker; `parent` ends when the parent has gone.

    It writes a byte to `ready` when it serves, and later one for each time it asks for its replacement.
    """

    ready: int
    parent: int
    row: Row


class _Worker:
    """A worker process as its parent sees it."""

    def __init__(self, pid: int, ready: int, row: Row, replaces: _Worker | None) -> None:
        self.pid = pid
        self.row = row
        self.has_pipe = True
        self.ready = ready
        # The worker that ends when this one serves; None also if it has ended by itself meanwhile.
        self.replaces = replaces
        self.started = time.monotonic()
        self.is_ready = self.is_reported = False
        # The watchdog counts from here: the import of an application may take longer than it allows.
        self.ready_at = inf
        self.kill_at: float | None = None


class Supervisor:
    """Runs and replaces workers until SIGTERM or SIGINT.

    Args:
        work: the body of a worker, called in a new process; its result is the exit status.
        count: number of workers.
        stop_seconds: seconds that a worker may take to stop.
        announce: called when all of the first workers serve, when a reload begins and ends, and when the stop begins,
            with "ready", "reloading", "ready", "stopping"; and about once a second with "watchdog".
        board: the numbers of the workers, with a row for each and for its successor.
        watchdog: seconds without a heartbeat after which a worker is killed and replaced; 0: never.
        has_changed: called about once a second: whether a reload is due.
    """

    def __init__(
        self,
        work: Callable[[WorkerPipes], int],
        count: int,
        stop_seconds: float,
        announce: Callable[[str], object],
        board: Board,
        watchdog: float = 0.0,
        has_changed: Callable[[], bool] | None = None,
    ) -> None:
        self._work = work
        self._board = board
        self._watchdog = watchdog
        self._has_changed = has_changed
        self._check_at = 0.0
        self._count = count
        self._stop_seconds = stop_seconds
        self._announce = announce
        self._workers: dict[int, _Worker] = {}
        self._to_reload: deque[_Worker] = deque()
        self._pause = SHORTEST_PAUSE
        # When the next worker may be started.
        self._start_at = 0.0
        self._has_served = False
        self._is_reloading = False
        self._waits_for_row = False
        self._status: int | None = None

    def run(self) -> int:
        """Supervise until all workers have ended; return the exit status. Blocks the OS thread; no checkpoint."""
        self._life_read, self._life_write = os.pipe()
        with _signals_by_descriptor() as signals:
            while self._status is None or self._workers:
                self._fill()
                for number in self._wait(signals):
                    self._handle(number)
                self._kill_late()
                self._check()
        os.close(self._life_read)
        os.close(self._life_write)
        return self._status or 0

    # --- waiting

    def _wait(self, signals: int) -> bytes:
        """Wait for signals and bytes of workers; return the numbers of the signals."""
        waiting = {worker.ready: worker for worker in self._workers.values() if worker.has_pipe}
        readable, _, _ = select.select([signals, *waiting], [], [], self._seconds_to_wait())
        for fd in readable:
            if fd in waiting:
                self._read_pipe(waiting[fd])
        return os.read(signals, 100) if signals in readable else b""

    def _read_pipe(self, worker: _Worker) -> None:
        if not os.read(worker.ready, 1):
            # It has ended. SIGCHLD reports that as well, perhaps later.
            worker.has_pipe = False
        elif not worker.is_ready:
            self._became_ready(worker)
        elif worker.kill_at is None:
            log.info("worker %d has reached a limit and is replaced", worker.pid)
            self._replace([worker])

    def _check(self) -> None:
        """Kill workers without a heartbeat, and reload after a change; about once a second."""
        now = time.monotonic()
        if now < self._check_at:
            return
        self._check_at = now + BETWEEN_CHECKS
        self._announce("watchdog")
        flush_outputs()
        for worker in self._workers.values():
            last_beat = max(worker.row.get("heartbeat"), worker.ready_at)
            if self._watchdog and worker.kill_at is None and now - last_beat > self._watchdog:
                log.error("worker %d had no heartbeat for %g s and is killed", worker.pid, self._watchdog)
                worker.kill_at = now + STACKS_SECONDS
                os.kill(worker.pid, signal.SIGABRT)
            self._report_slow(worker, now)
        if self._has_changed is not None and self._has_changed():
            self._reload()

    def _report_slow(self, worker: _Worker, now: float) -> None:
        if worker.is_ready or worker.is_reported or worker.kill_at is not None or now - worker.started < SLOW_START:
            return
        worker.is_reported = True
        log.warning(
            "worker %d does not serve yet, %g s after its start; the import of the application may wait for something",
            worker.pid,
            SLOW_START,
        )

    def _seconds_to_wait(self) -> float | None:
        times = [worker.kill_at for worker in self._workers.values() if worker.kill_at is not None]
        times.append(self._check_at)
        if self._status is None and self._missing() > 0 and self._free_rows > 0:
            times.append(self._start_at)
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _handle(self, number: int) -> None:
        if number == signal.SIGCHLD:
            self._reap()
        elif number == signal.SIGHUP:
            self._reload()
        elif self._status is None:
            self._stop_all(number)
        elif number == signal.SIGINT:
            # Ctrl-C during a stop: do not wait for the requests any longer.
            self._status = 128 + number
            for worker in self._workers.values():
                os.kill(worker.pid, number)

    # --- starting

    def _missing(self) -> int:
        serving = [worker for worker in self._workers.values() if worker.kill_at is None and worker.replaces is None]
        return self._count - len(serving)

    @property
    def _free_rows(self) -> int:
        return len(self._board.rows) - len(self._workers)

    def _fill(self) -> None:
        """Start the workers that are missing, unless one must wait because others have lived shortly."""
        while self._status is None and self._missing() > 0 and time.monotonic() >= self._start_at:
            if self._free_rows <= 0:
                # A worker that was killed because it had no heartbeat may not have ended yet.
                return
            self._start(None)

    def _start(self, replaces: _Worker | None) -> None:
        ready_read, ready_write = os.pipe()
        row = self._board.free_row()
        row.begin(-1, time.monotonic())
        # Block the signals until the child has replaced the handlers of its parent: they would write the number of a
        # signal to the child into the pipe of the parent.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        pid = os.fork()
        if pid:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            os.close(ready_write)
            self._workers[pid] = _Worker(pid, ready_read, row, replaces)
            row.set("pid", pid)
            return
        status = 1
        try:
            _restore_signals()
            os.close(ready_read)
            os.close(self._life_write)
            for worker in self._workers.values():
                os.close(worker.ready)
            status = self._work(WorkerPipes(ready_write, self._life_read, row))
        except KeyboardInterrupt:
            status = 128 + signal.SIGINT
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 1
        except BaseException:  # noqa: BLE001  printed: nothing of it may return into the code of the parent
            sys.excepthook(*sys.exc_info())
        finally:
            _end_process(status)

    def _became_ready(self, worker: _Worker) -> None:
        worker.is_ready = True
        worker.ready_at = time.monotonic()
        if self._status is not None:
            # It was about to serve when the stop began, and has got the signal as well.
            return
        if worker.replaces is not None:
            self._stop(worker.replaces, signal.SIGTERM)
            worker.replaces = None
        if self._is_reloading:
            self._reload_next()
        elif not self._has_served and all(each.is_ready for each in self._workers.values()):
            self._has_served = True
            self._announce("ready")

    # --- reload

    def _reload(self) -> None:
        if self._status is not None:
            return
        # Also during another reload: its new workers may have read files before the last change.
        log.info("reloading %d workers", len(self._workers))
        self._replace([worker for worker in self._workers.values() if worker.kill_at is None])

    def _replace(self, workers: list[_Worker]) -> None:
        """Replace `workers`, one at a time, after those that are being replaced already."""
        self._to_reload.extend(worker for worker in workers if worker not in self._to_reload)
        if not self._is_reloading:
            self._is_reloading = True
            self._announce("reloading")
            self._reload_next()

    def _reload_next(self) -> None:
        self._waits_for_row = False
        while self._to_reload:
            if self._free_rows <= max(self._missing(), 0):
                log.warning("a worker is replaced when one of %d processes has ended", len(self._workers))
                self._waits_for_row = True
                return
            old = self._to_reload.popleft()
            if old.pid in self._workers and old.kill_at is None:
                self._start(old)
                return
        self._is_reloading = False
        self._announce("ready")

    # --- ends

    def _reap(self) -> None:
        # One signal may stand for several children.
        for pid in list(self._workers):
            found, wait_status = os.waitpid(pid, os.WNOHANG)
            if found:
                worker = self._workers.pop(pid)
                os.close(worker.ready)
                worker.row.clear()
                self._ended(worker, os.waitstatus_to_exitcode(wait_status))
        if self._waits_for_row and self._status is None:
            self._reload_next()

    def _ended(self, worker: _Worker, status: int) -> None:
        """Handle the end of a worker that nothing has asked for; see the diagram in the module's docstring."""
        if worker.kill_at is not None or self._status is not None:
            return
        how = _end_by(status)
        successor = next((other for other in self._workers.values() if other.replaces is worker), None)
        if worker.replaces is not None:
            log.error("the new worker %d %s; the reload is given up, and the old workers go on", worker.pid, how)
            self._to_reload.clear()
            self._reload_next()
        elif successor is not None:
            # It serves in its place already, or soon.
            successor.replaces = None
            log.warning("worker %d %s before its successor %d served", worker.pid, how, successor.pid)
        elif not self._has_served and not worker.is_ready:
            log.error("worker %d %s before it served, so the server ends", worker.pid, how)
            # Others would fail as well, for the same reason.
            self._status = status if status > 0 else 1
            for other in self._workers.values():
                self._stop(other, signal.SIGTERM)
        else:
            log.warning("worker %d %s and is replaced", worker.pid, how)
            self._pause_after(worker)

    def _pause_after(self, worker: _Worker) -> None:
        """Delay the next start if `worker` lived shortly, longer with each such worker.

        Whether it served does not matter: a fault that the first request meets would end each successor as well.
        """
        now = time.monotonic()
        if now - worker.started >= SHORT_LIFE:
            return
        if now - self._start_at > FORGOTTEN_AFTER:
            self._pause = SHORTEST_PAUSE
        self._start_at = now + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def _stop_all(self, number: int) -> None:
        self._board.stop()
        self._announce("stopping")
        self._status = 0 if number == signal.SIGTERM else 128 + number
        for worker in self._workers.values():
            self._stop(worker, number)

    def _stop(self, worker: _Worker, number: int) -> None:
        worker.kill_at = time.monotonic() + self._stop_seconds + KILLED_AFTER
        os.kill(worker.pid, number)

    def _kill_late(self) -> None:
        for worker in self._workers.values():
            if worker.kill_at is not None and worker.kill_at <= time.monotonic():
                log.error("worker %d did not stop and is killed", worker.pid)
                os.kill(worker.pid, signal.SIGKILL)
                worker.kill_at += KILLED_AFTER


def _end_by(status: int) -> str:
    """Return how a process has ended; a signal of the system is mostly SIGKILL for want of memory, or a crash."""
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"


def _end_process(status: int) -> NoReturn:
    """End a worker as the interpreter ends: join the OS threads of the application, and run its `atexit` functions.

    The worker itself has limited the time for that.
    """
    try:
        # The parent sends it again to a worker that another one has replaced.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        threading._shutdown()  # type: ignore[attr-defined]  # not in the type stubs
        finish_process()
    finally:
        finish_outputs()
        # Not `sys.exit`: the functions of the parent that are under way here belong to the parent.
        os._exit(status)


@contextmanager
def _signals_by_descriptor() -> Iterator[int]:
    """Write the number of each of `SIGNALS` to a pipe during the block; yield its end for reading."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    os.set_blocking(reader, False)
    before = {number: signal.signal(number, _do_nothing) for number in SIGNALS}
    previous = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(previous)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reader)
        os.close(writer)


def _do_nothing(*_: object) -> None:
    """Handle a signal: its number is in the pipe."""


def _restore_signals() -> None:
    """Give the signals their usual meaning, in a worker."""
    signal.set_wakeup_fd(-1)
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    # A SIGHUP of a terminal goes to the whole process group. The supervisor handles it, and ends workers by SIGTERM. So
    # ignore it here.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
