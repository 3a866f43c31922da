"""One process that serves: the only one of a command, or a worker of several.

find the application → listen → heartbeat, admin port → report that it serves → requests → stop → its threads end
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from math import inf

from ..._calls.signals import at_interrupt, quiet_handlers
from ..._core.group import ThreadGroup
from ..._sync.events import Event
from ..._timeouts import sleep
from ...serve import Limits, Server
from ...serve._access_log import AccessLog
from ...serve._addresses import Address, FdAddress, parse_address
from ...serve._admin import admin_application
from ...serve._background import Background
from ...serve._board import Board
from ...serve._forced_end import INTERRUPTED, ForcedEnd
from ...serve._heartbeat import Heart
from ...serve._listeners import open_listeners
from ...serve._outputs import finish_outputs, flush_outputs
from ...serve._server import LAST_GRACE
from ...serve._sight import Sight
from ...serve._stopping import stopped_by_sigterm
from ...serve._tcp import DEFAULT_BACKLOG
from ...serve._workers import WorkerPipes
from ...serve._wsgi import Application, WsgiOptions, serve_application
from ..systemd import notify
from .application import WrongCommand, find_application
from .certificates import Certificates

__all__ = ["Process"]

BETWEEN_FLUSHES = 1.0
ADMIN_LIMITS = Limits(in_flight=20, connections=50, request_seconds=10)
# The settings that are options of the server under the same name.
SAME_OPTIONS = (
    "root_path",
    "half_close",
    "cancel_when_gone",
    "drain",
    "drain_delay",
    "trusted_proxies",
    "forwarded_fields",
    "proxy_protocol",
)


class Process:
    """A process that serves.

    Args:
        parser: reports what is wrong with the settings, and exits.
        settings: the settings.
        board: the numbers of all processes.
        pipes: those of a worker; None: the only process.
        ready: called with the server when it serves.
    """

    def __init__(
        self,
        parser: argparse.ArgumentParser,
        settings: Namespace,
        board: Board,
        pipes: WorkerPipes | None,
        ready: Callable[[Server], object],
    ) -> None:
        self._parser = parser
        self._settings = settings
        self._board = board
        self._pipes = pipes
        self._ready = ready
        self._log: AccessLog | None = None
        self._server: Server | None = None
        self._is_terminated = False

    def run(self) -> int:
        """Serve until the stop; return the exit status. A checkpoint."""
        self._end = ForcedEnd(self._close_log)
        self._background = Background()
        try:
            self._run()
        except BaseException as error:
            # A thread that the application has started must not keep a process that does not serve.
            self._background.cancel(f"the process ends: {type(error).__name__}")
            self._end.with_status(_status_of(error), LAST_GRACE)
            raise
        # An OS thread of the application, for example one that waits for messages, must not keep a process that has
        # stopped serving. The process ends no later than with virtual threads that do not end, because the parent of a
        # worker, or a service manager, does not wait longer.
        self._end.with_status(0, LAST_GRACE)
        return 0

    def _run(self) -> None:
        settings = self._settings
        try:
            app = find_application(settings)
            self._certificates = Certificates(settings)
        except WrongCommand as error:
            self._parser.error(str(error))
        row = self._board.free_row() if self._pipes is None else self._pipes.row
        if self._pipes is None:
            row.begin(os.getpid(), time.monotonic())
        self._log = _access_log(settings)
        self._sight = Sight(row, self._log)
        options = WsgiOptions(
            **{name: getattr(settings, name) for name in SAME_OPTIONS},
            limits=Limits(**{field.name: getattr(settings, field.name) for field in fields(Limits)}),
            tls=self._certificates.context,
            multiprocess=settings.workers > 1,
            sight=self._sight,
        )
        try:
            with self._signals():
                self._serve(app, options)
                self._background.end()
        finally:
            self._close_log()

    def _serve(self, app: Application, options: WsgiOptions) -> None:
        addresses = [parse_address(text) for text in self._settings.bind]
        admin = [parse_address(self._settings.admin)] if self._settings.admin else []
        with (
            # Before the server: an address that cannot be used ends the start, and a worker closes the listeners that
            # it has inherited as soon as it serves.
            open_listeners(admin, backlog=DEFAULT_BACKLOG, reuse_port=False) as self._admin_listeners,
            # Threads beside the server, which end with it.
            ThreadGroup("operation", on_failure="report", errors="first") as self._operation,
        ):
            try:
                serve_application(app, addresses, options, self._begin)
            finally:
                self._operation.cancel("the server has ended")

    def _begin(self, server: Server) -> None:
        server._at_stop, server._last_resort = self._background.stop, self._force_end
        heart = self._heart_of(server)
        heart.refresh()
        self._operation.spawn(heart.run)
        self._operation.spawn(_flush_often)
        if self._admin_listeners:
            self._serve_admin(admin_application(self._board, heart.refresh))
        if self._pipes is None:
            self._operation.spawn(_report_stop, server)
        self._ready(server)
        self._server = server
        if self._is_terminated:
            server.stop()

    def _force_end(self, seconds: float) -> None:
        # When the requests have ended, the threads of the application may have time left.
        self._end.within(max(seconds, self._background.seconds_left + LAST_GRACE))

    def _serve_admin(self, application: Application) -> None:
        """Start the admin port and wait until it serves, which the report that this process serves covers.

        A later failure is reported, and the server goes on.
        """
        serves = Event()
        where: list[Address] = [FdAddress(listener.fileno()) for listener in self._admin_listeners]
        options = WsgiOptions(limits=ADMIN_LIMITS)
        thread = self._operation.spawn(serve_application, application, where, options, lambda _: serves.set())
        thread.add_done_callback(lambda _: serves.set())
        serves.wait()

    def _heart_of(self, server: Server) -> Heart:
        most, pipes = self._settings.max_requests, self._pipes

        def beat() -> None:
            # With workers, the parent reports to systemd: it replaces a worker that has no heartbeat.
            if pipes is None and "WATCHDOG_USEC" in os.environ:
                notify("watchdog")

        def recycle() -> None:
            assert pipes is not None
            os.write(pipes.ready, b"r")

        # Workers that began together would reach the limit together, and be replaced one after the other at a time when
        # all are busy. Spread the replacements.
        jitter = random.randint(0, int(most * 0.1))
        return Heart(
            server,
            self._sight,
            beat=beat,
            max_requests=most + jitter if most else inf,
            max_rss=self._settings.max_rss * (1 << 20) or inf,
            recycle=recycle,
        )

    def _close_log(self) -> None:
        if self._log is not None:
            self._log.close()
            self._log = None
        finish_outputs()

    # --- signals

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Handle Ctrl-C, SIGTERM and SIGHUP during the block."""

        def interrupted() -> None:
            # A handler that pins the carrier keeps the exception from the root.
            self._end.with_status(INTERRUPTED, LAST_GRACE)

        # For the shell of a terminal, SIGHUP means its end. In a worker it is ignored: the parent handles it.
        handles_hangup = self._pipes is None and not sys.stderr.isatty()
        at_interrupt.append(interrupted)
        # The handler unparks no thread, so a process in which all threads wait is still a deadlock. A quiet handler is
        # recognized by identity, and each access to `self._reload` makes another bound method, so keep one object.
        reload = self._reload
        quiet_handlers.append(reload)
        if handles_hangup:
            before = signal.signal(signal.SIGHUP, reload)
        try:
            # Also after the server has ended: the parent may send SIGTERM to a worker that another one has replaced.
            with stopped_by_sigterm(self._stop):
                yield
        finally:
            at_interrupt.remove(interrupted)
            quiet_handlers.remove(reload)
            if handles_hangup:
                signal.signal(signal.SIGHUP, before)

    def _stop(self) -> None:
        self._is_terminated = True
        if self._server is not None:
            self._server.stop()

    def _reload(self, *_: object) -> None:
        """Handle SIGHUP without workers: only the certificate can be replaced. After SIGTERM it has no effect."""
        if self._is_terminated:
            # "Ready" would follow "stopping".
            return
        notify("reloading")
        self._certificates.reload()
        notify("ready")


def _status_of(error: BaseException) -> int:
    """Return the exit status of a process that ends by `error`."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    return error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else 1


def _report_stop(server: Server) -> None:
    server._stop.wait()
    notify("stopping")


def _flush_often() -> None:
    while True:
        sleep(BETWEEN_FLUSHES)
        flush_outputs()


def _access_log(settings: Namespace) -> AccessLog | None:
    kind = settings.access_log
    if kind == "auto":
        kind = "off" if sys.stdout.isatty() else "json"
    # The OS thread of the log waits for the reader of stdout while it holds the lock of the stream. With `sys.stdout`,
    # a print of the application would wait for that lock, so the log has a separate stream.
    return None if kind == "off" else AccessLog(open(os.dup(1), "w"), kind, owns_stream=True)
