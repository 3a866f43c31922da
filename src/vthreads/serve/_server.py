"""A server: listeners, the group of its connections, and the order in which it stops. It does not depend on a protocol.

Owners, outermost first. Each ends after all that it owns, however it ends:

    the thread that called `tcp` or `wsgi`
      └ group "server": a failure ends the server
          ├ one acceptor for each listener, and a thread that spawns one for a connection whose data nothing waits for
          └ group "connections", on_failure="report": a failure ends one connection
              ├ one thread for each connection that is under way
              └ connections without a thread (idle), which the poller watches

A connection defines `run()`, the body of its thread, `hurry()`, called when the server begins to stop, and `close()`,
which never waits and may be called twice. It calls `Server._forget` when it has closed its socket.

    RUNNING ──stop()──> DELAYING ──drain_delay──> DRAINING ──all connections closed, or drain s──> CANCELLING ──> over

Drain counts connections, not requests: every connection that has something under way ends after that, and an idle one
ends by its linger. So no connection is left exactly when nothing is under way.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Sequence
from math import inf
from typing import Any, Protocol, Self

from .._calls.net.readiness import READ, park_for_fd
from .._core.cancel import CancelScope
from .._core.copies import refuse_creation
from .._core.current import started_here
from .._core.future import Future
from .._core.group import ThreadGroup
from .._core.runtime import current_thread, now
from .._sync.events import Event
from .._sync.queues import SimpleQueue
from .._timeouts import sleep
from ..errors import GroupClosed
from ._listeners import ABORTED, EXHAUSTED, drop_new_connections

__all__ = ["Connection", "Server"]

log = logging.getLogger("vthreads.serve")

# Seconds that cancelled handlers may take for their cleanup when the server ends.
LAST_GRACE = 5.0
# Seconds from the end of new connections to the close of the listeners. A client whose SYN was answered before takes
# its connection for open and sends a request, and the close would reset it: its acknowledgement is still under way.
HANDSHAKE_ENDS = 0.25
# Pauses after an accept for which no descriptor or memory was free, and seconds between two log lines about it.
SHORTEST_PAUSE, LONGEST_PAUSE = 0.01, 1.0
BETWEEN_REPORTS = 1.0


class Connection(Protocol):
    """A connection; see the module's contract."""

    def run(self) -> None: ...

    def hurry(self) -> None: ...

    def close(self) -> None: ...


class Server:
    """A running server. Created by `serve.tcp` and `serve.wsgi`, which pass it to `ready`.

    Attributes:
        is_stopping: whether `stop` was called.
    """

    def __init__(self, *_: object, **__: object) -> None:
        refuse_creation(self, "serve.tcp and serve.wsgi create the server, run it, and pass it to the function `ready`")

    def _init_server(
        self,
        listeners: Sequence[socket.socket],
        connect: Callable[[Server, socket.socket, Any], Connection],
        *,
        max_connections: float,
        drain: float,
        drain_delay: float,
        backlog: int,
        shares_listeners: bool,
    ) -> Self:
        """Prepare a server; `_run` serves in the thread that calls it.

        Args:
            listeners: sockets that listen; the caller closes them.
            connect: makes the connection of an accepted socket: `connect(server, sock, address)`.
            max_connections: connections that are open at once.
            drain: seconds that connections may take to end after `stop`; then they are cancelled.
            drain_delay: seconds from `stop` to the end of accepting, in which load balancers notice that the server
                stops.
            backlog: connections that are accepted at most from each listener after `stop`.
            shares_listeners: other processes may go on to accept at the listeners.
        """
        self._scheduler = started_here()._scheduler
        # For connections: works also where no thread runs.
        self._now: Callable[[], float] = self._scheduler.clock.now
        self._listeners = listeners
        self._connect = connect
        self._drain_seconds = drain
        self._drain_delay = drain_delay
        self._backlog = backlog
        self._shares_listeners = shares_listeners
        self._max_connections = max_connections
        self._connections: dict[Connection, None] = {}
        self._group = ThreadGroup("connections", on_failure="report", cleanup_grace=LAST_GRACE)
        self._stop = Event()
        # The same as the event, because each response reads it, and an attribute costs less than a call.
        self.is_stopping: bool = False
        self._one_closed = Event()
        # Connections, with the body of the thread that each gets.
        self._to_spawn: SimpleQueue[tuple[Connection, Callable[[], object]]] = SimpleQueue()
        self._reported_at = -inf
        # Called once with the seconds after which the handlers are cancelled, when the stop begins. May be called by a
        # signal handler, and from another OS thread.
        self._at_stop: Callable[[float], object] = _do_nothing
        # Called with the seconds in which the server ends unless a handler ignores its cancellation: at the stop, and
        # again when the handlers are cancelled. May be called by a signal handler.
        self._last_resort: Callable[[float], object] = _do_nothing
        return self

    def __repr__(self) -> str:
        state = "stopping" if self.is_stopping else "running"
        return f"<Server {state} connections={len(self._connections)} at {', '.join(map(str, self.addresses))}>"

    @property
    def addresses(self) -> list[Any]:
        """The addresses of the listeners, as `socket.getsockname` returns them."""
        return [listener.getsockname() for listener in self._listeners if listener.fileno() >= 0]

    @property
    def open_connections(self) -> int:
        """The number of accepted connections that are not closed yet, those of idle clients included. Thread-safe."""
        return len(self._connections)

    def stop(self) -> None:
        """Begin to stop, and return at once. Not a checkpoint; thread-safe; may be called by a signal handler."""
        # Handlers see it through `vthreads.stopping()`.
        self._group._stopping = True
        if not self._stop.is_set():
            seconds = self._drain_delay + self._drain_seconds
            self._at_stop(seconds)
            self._last_resort(seconds + LAST_GRACE)
        self.is_stopping = True
        self._stop.set()

    def _run(self, ready: Callable[[Server], object] | None) -> None:
        """Serve until `stop` is called and what was under way has ended. A checkpoint."""
        with ThreadGroup("server") as server:
            try:
                with self._group:
                    self._serve(server, ready)
            finally:
                # Connections without a thread, and those whose thread was cancelled before it ran.
                for connection in list(self._connections):
                    connection.close()
                server.cancel("the server has ended")

    def _serve(self, server: ThreadGroup, ready: Callable[[Server], object] | None) -> None:
        try:
            acceptors = [server.spawn(self._accept, listener) for listener in self._listeners]
            server.spawn(self._spawn_asked)
            if ready is not None:
                ready(self)
            self._stop.wait()
            self._finish(acceptors)
        finally:
            self._last_resort(LAST_GRACE)
            # Also after a failure: otherwise the group would wait until the last client has gone.
            self._group.cancel("the server has ended")

    # --- stopping

    def _finish(self, acceptors: list[Future[None]]) -> None:
        for connection in list(self._connections):
            connection.hurry()
        sleep(self._drain_delay)
        until = now() + self._drain_seconds
        with CancelScope(until):
            if not self._shares_listeners:
                for listener in self._listeners:
                    drop_new_connections(listener)
            sleep(HANDSHAKE_ENDS)
        for acceptor in acceptors:
            acceptor.cancel()
        for acceptor in acceptors:
            acceptor.thread.join()
        with CancelScope(until):
            for listener in self._listeners:
                self._accept_backlog(listener)
                listener.close()
            while self._connections:
                self._wait_until_one_closes()
        for listener in self._listeners:
            listener.close()
        if self._connections:
            left = len(self._connections)
            log.warning("connections are cancelled, which did not end within %g s: %d", self._drain_seconds, left)

    def _accept_backlog(self, listener: socket.socket) -> None:
        """Accept the connections that wait in the kernel: closing the listener would reset them.

        No more than the kernel can hold: clients connect to a shared listener without end. The limit of connections
        holds as before, so that a full backlog does not exhaust the descriptors. A checkpoint.
        """
        listener.setblocking(False)
        left = self._backlog
        while left > 0:
            while len(self._connections) >= self._max_connections:
                self._wait_until_one_closes()
            try:
                sock, address = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in ABORTED:
                    continue
                if error.errno in EXHAUSTED:
                    self._report(error, SHORTEST_PAUSE)
                    sleep(SHORTEST_PAUSE)
                    continue
                log.warning("connections in the backlog of %s are lost: %s", listener, error)
                return
            left -= 1
            self._begin(sock, address)

    # --- connections

    def _accept(self, listener: socket.socket) -> None:
        pause = SHORTEST_PAUSE
        while True:
            while len(self._connections) >= self._max_connections:
                self._wait_until_one_closes()
            try:
                sock, address = listener.accept()
            except BlockingIOError:
                # Processes that share the listener share its non-blocking mode, and another one has been faster.
                park_for_fd(current_thread(), listener.fileno(), READ)
                continue
            except OSError as error:
                if error.errno in EXHAUSTED:
                    self._report(error, pause)
                    sleep(pause)
                    pause = min(2 * pause, LONGEST_PAUSE)
                elif error.errno not in ABORTED:
                    raise
                continue
            pause = SHORTEST_PAUSE
            self._begin(sock, address)

    def _report(self, error: OSError, pause: float) -> None:
        """Log a failed accept, once a second at most."""
        if now() - self._reported_at >= BETWEEN_REPORTS:
            self._reported_at = now()
            log.warning("cannot accept a connection, next try in %g s: %s", pause, error)

    def _begin(self, sock: socket.socket, address: Any) -> None:
        connection = self._connect(self, sock, address)
        self._connections[connection] = None
        self._spawn(connection, connection.run)

    def _spawn(self, connection: Connection, body: Callable[[], object]) -> None:
        try:
            self._group.spawn(body)
        except GroupClosed:
            # The connections were cancelled meanwhile, and the threads that spawn others are about to be.
            connection.close()

    def _wait_until_one_closes(self) -> None:
        self._one_closed.clear()
        self._one_closed.wait()

    def _forget(self, connection: Connection) -> None:
        """Remove `connection`, which has closed its socket. Not a checkpoint; further calls do nothing."""
        if connection in self._connections:
            del self._connections[connection]
            self._one_closed.set()

    def _spawn_soon(self, connection: Connection, body: Callable[[], object]) -> None:
        """Spawn a thread of `connection` for data that have arrived. Not a checkpoint; for calls in the scheduler."""
        self._to_spawn.put((connection, body))

    def _spawn_asked(self) -> None:
        while True:
            self._spawn(*self._to_spawn.get())


def _do_nothing(_: float) -> None:
    """Rely on handlers that end after their cancellation."""
