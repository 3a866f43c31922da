"""Several processes that serve: the parent opens the listeners, forks the workers, and reports to systemd."""

from __future__ import annotations

import argparse
import faulthandler
import os
import socket
import sys
import threading
from argparse import Namespace
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..._core.engine import engine_name
from ..._core.originals import get_ident, read_fd
from ..._core.os_thread_kinds import own_os_threads
from ..._core.own_os_thread import start_own_os_thread
from ..._core.runtime import run
from ...serve import Server
from ...serve._addresses import parse_address
from ...serve._board import Board
from ...serve._listeners import drop_new_connections, open_listeners
from ...serve._outputs import write_notice
from ...serve._tcp import DEFAULT_BACKLOG
from ...serve._workers import Supervisor, WorkerPipes
from ..systemd import notify
from .process import Process

__all__ = ["announced", "supervise"]

# Seconds before the end of the delay at which the parent stops new connections.
BEFORE_CLOSE = 0.1


def supervise(parser: argparse.ArgumentParser, settings: Namespace) -> int:
    """Serve in several processes, which share the listeners and import the application each for itself."""
    if settings.reload:
        # Python trusts a cached module when the size and the second of its source agree, so an edit of one letter
        # within a second of the import would be missed. Do not cache what is being edited.
        sys.dont_write_bytecode = True
    addresses = [parse_address(text) for text in settings.bind]
    admin = [parse_address(settings.admin)] if settings.admin else []
    with (
        open_listeners(addresses, backlog=DEFAULT_BACKLOG, reuse_port=False) as listeners,
        open_listeners(admin, backlog=DEFAULT_BACKLOG, reuse_port=False) as admin_listeners,
    ):
        return Parent(parser, settings, listeners, admin_listeners).run()


class Parent:
    """The parent of the workers.

    Args:
        parser: reports what is wrong with the settings, and exits.
        settings: the settings; those of the addresses are replaced by descriptors, which the workers inherit.
        listeners: the listeners of the application.
        admin_listeners: those of the admin port.
    """

    def __init__(
        self,
        parser: argparse.ArgumentParser,
        settings: Namespace,
        listeners: list[socket.socket],
        admin_listeners: list[socket.socket],
    ) -> None:
        self._parser = parser
        self._settings = settings
        self._listeners = listeners
        self._inherited = [*listeners, *admin_listeners]
        self._where = announced([listener.getsockname() for listener in listeners], settings)
        # While a worker is replaced, its successor has a row as well.
        self._board = Board(2 * settings.workers + 2)
        settings.bind = [f"fd://{listener.fileno()}" for listener in listeners]
        settings.admin = f"fd://{admin_listeners[0].fileno()}" if admin_listeners else ""

    def run(self) -> int:
        """Supervise the workers until all have ended; return the exit status. Blocks the OS thread."""
        settings = self._settings
        return Supervisor(
            self._work,
            settings.workers,
            settings.drain + settings.drain_delay,
            self._announce,
            self._board,
            settings.watchdog,
            _Sources(settings.app_dir).have_changed if settings.reload else None,
        ).run()

    # --- in a worker

    def _work(self, pipes: WorkerPipes) -> int:
        # Write the stacks at SIGABRT, which the parent sends to a worker that has no heartbeat.
        faulthandler.enable()
        serving: list[Server] = []
        # An OS thread, because a handler may pin the carrier.
        start_own_os_thread(_end_with_parent, (pipes.parent, serving))
        return run(self._serve, pipes, serving)

    def _serve(self, pipes: WorkerPipes, serving: list[Server]) -> int:
        def ready(server: Server) -> None:
            # The server has duplicates. After it has closed those, connections would wait at the inherited descriptors.
            for listener in self._inherited:
                listener.close()
            serving.append(server)
            os.write(pipes.ready, b"r")

        return Process(self._parser, self._settings, self._board, pipes, ready).run()

    # --- in the parent

    def _announce(self, state: str) -> None:
        if state != "watchdog" or "WATCHDOG_USEC" in os.environ:
            notify(state)
        if state == "ready":
            write_notice(self._where)
        if state == "stopping":
            if self._settings.drain_delay <= BEFORE_CLOSE:
                self._refuse_connections()
                return
            # During the delay the workers accept. Before they close, no connection may arrive any more.
            timer = threading.Timer(self._settings.drain_delay - BEFORE_CLOSE, self._refuse_connections)
            timer.daemon = True
            timer.start()

    def _refuse_connections(self) -> None:
        # A connection that no worker accepts must be refused. With this descriptor open, it would wait here.
        for listener in self._listeners:
            drop_new_connections(listener)
            listener.close()


def announced(addresses: list[Any], settings: Namespace) -> str:
    """Return the line that reports that the command serves at `addresses`, and on which engine."""
    scheme = "https" if settings.certfile else "http"
    shown = [_shown(address, scheme) for address in addresses]
    return f"serving on {', '.join(shown)}, process {os.getpid()}, {engine_name} engine"


def _shown(address: Any, scheme: str) -> str:
    if not isinstance(address, tuple):
        return f"unix:{address}"
    host, port = address[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _end_with_parent(life: int, serving: list[Server]) -> None:
    """End this worker when its parent has gone (the body of an OS thread)."""
    # A carrier would assume that an unknown OS thread may unpark its threads, and never report a deadlock.
    own_os_threads.add(get_ident())
    try:
        # The other end of the pipe closes with the parent.
        read_fd(life, 1)
        if not serving:
            # The application is being imported, and no request would be lost.
            os._exit(1)
        serving[0].stop()
    finally:
        own_os_threads.discard(get_ident())


class _Sources:
    """The Python files below a directory, for `--reload`."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder or ".")
        self._seen = self._times()

    def _times(self) -> dict[Path, int]:
        times = {}
        for path in self._folder.rglob("*.py"):
            # An editor may remove and rename files meanwhile.
            with suppress(OSError):
                times[path] = path.stat().st_mtime_ns
        return times

    def have_changed(self) -> bool:
        """Return whether a file was added, removed or written since the last call."""
        before, self._seen = self._seen, self._times()
        return before != self._seen
