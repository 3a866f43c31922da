"""Celery: a pool for the worker that runs each task on a virtual thread.

    CELERY_CUSTOM_WORKER_POOL=vthreads.integrations.celery:TaskPool celery -A module worker -P custom -c 1000

The import patches the standard library: Celery imports the pool first, and patches nothing for `-P custom` itself.

If the transport of the broker is asynchronous (Redis, AMQP), the main thread of the worker runs kombu's event loop.
Otherwise it consumes in a loop that blocks. In both, `on_apply` never waits: a loop that waits for a task sends no
heartbeats. Tasks beyond the limit wait in the pool, and the prefetch count of the broker bounds their number. The event
loop also sends the acknowledgements, so one thread alone writes to the connection of the broker.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import count
from math import inf
from threading import Event, Lock
from time import monotonic
from typing import Any

from billiard.einfo import ExceptionInfo
from billiard.exceptions import SoftTimeLimitExceeded, Terminated
from celery.backends import asynchronous
from celery.concurrency.base import BasePool
from celery.utils import timer2
from celery.utils.log import get_logger

from .._core.cancel import CancelScope
from .._core.current import running
from .._core.group import ThreadGroup
from .._core.runtime import checkpoint, now, spawn
from .._core.thread import VirtualThread
from .._patching import patch
from .._timeouts import shield, sleep
from ..errors import Cancelled

__all__ = ["TaskPool"]

logger: logging.Logger = get_logger(__name__)

# Backends that many threads may use at the same time, so all tasks share one, with its pool of connections. Each thread
# makes another object of the other kinds, unless the setting `result_backend_thread_safe` is true.
SHARED_BACKENDS = ("redis", "rediss")

# Seconds that a cold shutdown waits for tasks that handle their cancellation, to the next `HEARTBEAT`.
TERMINATION = 5.0

# Seconds between two checks of the timers of the event loop while tasks end: they send heartbeats to the broker.
HEARTBEAT = 0.5

_numbers = count(1)


class _Job:
    """A task that the pool has accepted; what `on_apply` returns.

    Attributes:
        number: stands for the process id, which Celery passes to `terminate_job`.
        scope: of the task alone: the reports of its outcome are outside.
    """

    def __init__(self, pool: TaskPool, target: Callable[..., Any], args: Any, keywords: Any) -> None:
        self.number: int = next(_numbers)
        self.scope: CancelScope = CancelScope()
        self.timeout: float | None = None
        self.soft_timeout: float | None = None
        # The signal that it was terminated by.
        self.signal: Any = None
        # Whether its outcome is not reported, because the worker ends at once.
        self.is_dropped = False
        self._pool = pool
        self._target = target
        self._arguments = args or ()
        self._keywords = keywords or {}
        # The exception of the soft limit, once it was raised in the task.
        self._soft_error: BaseException | None = None
        self._is_in_task = False

    def terminate(self, signal: Any) -> None:
        """End it if it has not begun; `terminate_job` does so for one that has."""
        self._pool._advance(self)

    def run(self, accepted: Callable[..., Any], succeeded: Any, failed: Any, timed_out: Any) -> None:
        accepted(self.number, monotonic())
        if self.timeout:
            self.scope.deadline = now() + self.timeout
        try:
            with self.scope:
                value = self._call(timed_out)
        except Cancelled:
            # Not of this task, whose scope absorbs its own cancellation, but of the whole program.
            raise
        except BaseException:  # noqa: BLE001  # reported to the worker, as pools of processes do
            if not self.is_dropped:
                failed(ExceptionInfo())
            return
        if self.is_dropped:
            return
        if not self.scope.cancelled_caught:
            succeeded(value)
        elif self.signal is not None:
            failed(_info_of(Terminated(self.signal)))
        else:
            timed_out(False, self.timeout)

    def _call(self, timed_out: Callable[..., Any]) -> Any:
        if self.scope.cancel_called:
            # Terminated before it began, so raise the cancellation here, and not at the first wait of the task.
            checkpoint()
        if not self.soft_timeout:
            return self._target(*self._arguments, **self._keywords)
        limit = spawn(self._limit_softly, running(), timed_out)
        self._is_in_task = True
        try:
            return self._target(*self._arguments, **self._keywords)
        finally:
            self._is_in_task = False
            limit.cancel()
            self._drop_interrupt()

    def _limit_softly(self, thread: VirtualThread | None, timed_out: Callable[..., Any]) -> None:
        sleep(self.soft_timeout or 0)
        if thread is not None and self._is_in_task:
            self._soft_error = SoftTimeLimitExceeded(self.soft_timeout)
            thread.interrupt(self._soft_error)
            timed_out(True, self.soft_timeout)

    def _drop_interrupt(self) -> None:
        """Take the interrupt of the soft limit that came too late: it must not end the report of the outcome."""
        if self._soft_error is None:
            return
        with suppress(SoftTimeLimitExceeded), shield(None):
            checkpoint()


def _info_of(error: BaseException) -> Any:
    try:
        raise error
    except BaseException:  # noqa: BLE001  # the class reads the exception that is handled
        return ExceptionInfo()


class TaskPool(BasePool):  # type: ignore[misc]  # Celery has no types
    """The pool of a worker of Celery, with a virtual thread for each task.

    `CELERY_CUSTOM_WORKER_POOL=vthreads.integrations.celery:TaskPool` and `-P custom` choose it. `-c` limits how many
    tasks run at the same time. A soft time limit interrupts the task with `SoftTimeLimitExceeded` where it waits. A
    hard limit cancels it, and so does `revoke(terminate=True)`. Only the methods that stop the pool are checkpoints.
    """

    is_green = True
    task_join_will_block = False
    # A signal handler cannot wait for the tasks: it only asks the loop to stop.
    signal_safe = False
    limit: int

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._waiting: deque[tuple[_Job, tuple[Any, ...]]] = deque()
        self._running: dict[int, _Job] = {}
        self._group: Any = None
        self._hub: Any = None
        # Set when no task is left, while something waits for that.
        self._drained: Event | None = None

    # --- life

    def on_start(self) -> None:
        """Start the runtime on this OS thread."""
        self._group = ThreadGroup.current
        if self.app is not None:
            _share_backend(self.app)

    def register_with_event_loop(self, loop: Any) -> None:
        """Remember the loop, whose timers must go on while tasks end."""
        self._hub = loop

    def flush(self) -> None:
        """Forget the tasks that have not begun. The broker delivers them again: they are not acknowledged."""
        self._waiting.clear()

    def on_close(self) -> None:
        """Begin no more tasks. From here on, `on_apply` forgets them as `flush` does."""
        self.flush()

    def on_stop(self) -> None:
        """Wait for the tasks that have begun (warm shutdown)."""
        self._wait_until_drained(inf)

    def on_terminate(self) -> None:
        """Cancel the tasks, and wait until they have handled that (cold shutdown)."""
        self.flush()
        for job in list(self._running.values()):
            job.is_dropped = True
            job.scope.cancel("cold shutdown of the worker")
        self._wait_until_drained(TERMINATION)

    def _wait_until_drained(self, seconds: float) -> None:
        self._drained = Event()
        until = now() + seconds
        while self._running and now() < until:
            self._drained.wait(HEARTBEAT)
            if self._hub is not None:
                self._hub.fire_timers()

    # --- tasks

    def on_apply(
        self,
        target: Callable[..., Any],
        args: Any = None,
        kwargs: Any = None,
        callback: Any = None,
        accept_callback: Any = None,
        error_callback: Any = None,
        timeout: float | None = None,
        soft_timeout: float | None = None,
        timeout_callback: Any = None,
        **_: Any,
    ) -> _Job:
        """Run the task now, or later if as many as allowed run.

        A closed pool forgets it. The worker closes its pool before it asks the broker to send no more messages, so
        messages still arrive. No code would wait for a task that begins then.
        """
        job = _Job(self, target, args, kwargs)
        job.timeout = timeout or self.options.get("timeout")
        job.soft_timeout = soft_timeout or self.options.get("soft_timeout")
        reports = (
            accept_callback or _ignore,
            callback or _ignore,
            error_callback or _ignore,
            timeout_callback or _ignore,
        )
        if self._state in (self.CLOSE, self.TERMINATE):
            logger.info("the pool is closed: leave a task to the broker")
        elif len(self._running) < self.limit:
            self._start(job, reports)
        else:
            self._waiting.append((job, reports))
        return job

    def _start(self, job: _Job, reports: tuple[Any, ...]) -> None:
        self._running[job.number] = job
        self._group.spawn(self._run, job, reports)

    def _run(self, job: _Job, reports: tuple[Any, ...]) -> None:
        try:
            job.run(*reports)
        except Exception:
            # One of the reports has failed, in code of Celery. Log it with its traceback. Raised here, it would cancel
            # all other tasks of the worker.
            logger.exception("the outcome of a task could not be reported")
        finally:
            del self._running[job.number]
            self._start_waiting()

    def _start_waiting(self) -> None:
        while self._waiting and len(self._running) < self.limit:
            self._start(*self._waiting.popleft())
        if not self._running and self._drained is not None:
            self._drained.set()

    def _advance(self, job: _Job) -> None:
        """Start a job that waits, although no more may run: it was revoked, and reports that when it begins."""
        for entry in list(self._waiting):
            if entry[0] is job:
                self._waiting.remove(entry)
                self._start(*entry)

    def terminate_job(self, pid: int, signal: Any = None) -> None:
        """Cancel the task with this number."""
        job = self._running.get(pid)
        if job is not None:
            job.signal = signal or 0
            job.scope.cancel("the task was revoked")

    # --- size

    def grow(self, n: int = 1) -> None:
        """Let `n` more tasks run. Thread-safe."""
        self.limit += n
        self._start_waiting()

    def shrink(self, n: int = 1) -> None:
        """Let `n` fewer tasks run, as soon as some have ended. Thread-safe."""
        self.limit = max(1, self.limit - n)

    def _get_info(self) -> dict[str, Any]:
        return {**super()._get_info(), "running": len(self._running), "waiting": len(self._waiting)}

    # --- what the worker needs of a pool with threads that are not those of the operating system

    @staticmethod
    def spawn_n(function: Callable[..., Any], *args: Any) -> None:
        """Run a service of the worker: the one that answers commands."""
        spawn(function, *args)

    class Timer(timer2.Timer):  # type: ignore[misc]  # Celery has no types
        """The timer of workers without an event loop, on a virtual thread: tasks start on the carrier of the pool."""

        _ending: Any = None

        def start(self) -> None:
            """Run the timer, once."""
            if self._ending is None:
                self._ending = spawn(self.run)

        def join(self, timeout: float | None = None) -> None:
            """Wait for its end."""
            if self._ending is not None:
                self._ending.thread.join(timeout)


def _ignore(*_: Any) -> None:
    """Stand for a report that the caller does not need."""


def _share_backend(app: Any) -> None:
    scheme = str(app.conf.result_backend or "").partition(":")[0]
    if scheme in SHARED_BACKENDS and app._backend_cache is None:
        backend = app.backend
        backend.thread_safe = True
        if backend._ConnectionPool is None:
            # The default pool raises an error when all its connections are in use, at 100 of them.
            backend._ConnectionPool = partial(backend.redis.BlockingConnectionPool, timeout=None)
        app._backend_cache = backend


class _TurnsDrainer(asynchronous.Drainer):  # type: ignore[misc]  # Celery has no types
    """Waits for results in tasks: one thread reads the connection of results, and the others wait for its reading."""

    def __init__(self, result_consumer: Any) -> None:
        super().__init__(result_consumer)
        self._reading = Lock()
        self._read = Event()

    def wait_for(self, p: Any, wait: Callable[..., Any], timeout: float | None = None) -> None:
        read = self._read
        if not self._reading.acquire(blocking=False):
            read.wait(timeout)
            return
        try:
            wait(timeout=timeout)
        finally:
            self._read = Event()
            self._reading.release()
            read.set()


patch()
asynchronous.register_drainer("default")(_TurnsDrainer)
