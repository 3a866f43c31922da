"""A worker of gunicorn: its settings, hooks, signals and access log on the server of this package.

The master imports this module, makes the workers and checks their configuration. Only `init_process`, in the new
process, starts the runtime, which patches the standard library before the application is imported.
"""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from math import inf
from typing import Any

from gunicorn.errors import ConfigError
from gunicorn.sock import ssl_context
from gunicorn.workers import base

from .._calls.signals import quiet_handlers
from .._core.group import ThreadGroup
from .._core.originals import get_ident, write_fd
from .._core.originals import sleep as os_sleep
from .._core.os_thread_kinds import own_os_threads
from .._core.own_os_thread import start_own_os_thread
from .._core.runtime import current_thread, run
from .._timeouts import sleep
from ._addresses import Address, FdAddress
from ._background import Background
from ._forced_end import ForcedEnd
from ._heartbeat import Heart
from ._http.refusals import Refusal
from ._limits import Limits
from ._outputs import flush_outputs, non_blocking_outputs
from ._server import LAST_GRACE, Server
from ._sight import Sight
from ._websocket import EXCHANGE
from ._wsgi import WsgiOptions, serve_application

__all__ = ["Worker"]

BETWEEN_LOOKS = 1.0
# Seconds of `graceful_timeout` that are left for the cleanup of cancelled threads: at its end the master kills.
CLEANUP_SECONDS = 2.0
EVERY_ADDRESS = ["0.0.0.0/0", "::/0"]


class Worker(base.Worker):  # type: ignore[misc]  # gunicorn has no types
    """A worker of gunicorn on virtual threads.

    These settings of gunicorn have their effect: `worker_connections`, `keepalive`, `graceful_timeout`, `timeout` (as
    the heartbeat), `max_requests` with its jitter, `limit_request_*` (up to the limits of this server),
    `forwarded_allow_ips`, `proxy_protocol`, TLS, `reload`, the hooks, and the access log. A subclass may set `limits`
    for the others, as the deadline of a request.

    The heartbeat stops while the carrier is pinned, and while a handler ignores the end of its deadline.
    """

    limits = Limits()
    _server: Server | None = None

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Refuse settings that would be unsafe here, and report those without an effect; called in the master.

        Raises:
            ConfigError: the PROXY protocol and the fields of proxies are trusted from different addresses.
        """
        if cfg.proxy_protocol != "off" and set(cfg.proxy_allow_ips) != set(cfg.forwarded_allow_ips):
            raise ConfigError(
                f"proxy_allow_ips={cfg.proxy_allow_ips} and forwarded_allow_ips={cfg.forwarded_allow_ips} differ: set "
                "both to the addresses of the proxies"
            )
        if cfg.header_map != "drop":
            log.warning("header_map=%s has no effect: header fields with an underscore are dropped", cfg.header_map)

    def init_process(self) -> None:
        """Start the runtime, and in it the worker."""
        # The handlers of the master ignore a stop, and the base class sets its own only after the start of the runtime.
        signal.signal(signal.SIGTERM, self.handle_exit)
        for number in (signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, self.handle_quit)
        run(self._live)

    def _live(self) -> None:
        self._background = Background(self.notify)
        try:
            # gunicorn writes its logs to the standard streams, and a pipe that is full would block the carrier.
            with non_blocking_outputs():
                super().init_process()
                self._background.end()
        except BaseException as error:
            # A thread that the application has started must not keep a process that does not serve.
            self._background.cancel(f"the worker ends: {type(error).__name__}")
            raise

    def init_signals(self) -> None:
        """Set the handlers of the base class."""
        super().init_signals()
        # When the server has stopped, none of these handlers ends the wait of a thread, so they do not exclude a
        # deadlock. The same holds for handlers of the master that this worker has kept.
        handlers = map(signal.getsignal, signal.valid_signals())
        quiet_handlers.extend(handler for handler in handlers if callable(handler))

    def run(self) -> None:
        """Serve until the master stops this worker. A checkpoint."""
        cfg = self.cfg
        sight = _Sight(self)
        trusted = EVERY_ADDRESS if "*" in cfg.forwarded_allow_ips else cfg.forwarded_allow_ips
        options = WsgiOptions(
            limits=replace(self.limits, connections=cfg.worker_connections, idle_seconds=cfg.keepalive),
            tls=ssl_context(cfg) if cfg.is_ssl else None,
            root_path=os.environ.get("SCRIPT_NAME", ""),
            drain=cfg.graceful_timeout - min(CLEANUP_SECONDS, cfg.graceful_timeout / 2),
            multiprocess=cfg.workers > 1,
            # As in gunicorn: a peer without an address is on this machine.
            trusted_proxies=[*trusted, "unix"],
            proxy_protocol=cfg.proxy_protocol != "off",
            sight=sight,
        )
        addresses: list[Address] = [FdAddress(sock.fileno()) for sock in self.sockets]
        # Threads beside the server, which end with it.
        with ThreadGroup("operation", on_failure="report", errors="first") as self._operation:
            try:
                app = sight.watched(self.wsgi)
                serve_application(app, addresses, options, lambda server: self._begin(server, sight))
            finally:
                self._operation.cancel("the server has ended")

    def _begin(self, server: Server, sight: _Sight) -> None:
        self._server = server
        server._at_stop = self._background.stop
        # The server has duplicates. After it has closed those, connections would wait at the inherited descriptors.
        for sock in self.sockets:
            sock.close()
        heart = Heart(
            server,
            sight,
            beat=self.notify,
            max_requests=self.max_requests if self.cfg.max_requests else inf,
            recycle=server.stop,
        )
        self.notify()
        self._operation.spawn(heart.run)
        self._operation.spawn(_flush_often)
        self._operation.spawn(self._watch_files, server)
        # An OS thread, because a handler may pin the carrier.
        start_own_os_thread(self._watch_master, (server,))

    def _watch_files(self, server: Server) -> None:
        """Stop when the reloader of gunicorn has found a change."""
        while self.alive:
            sleep(BETWEEN_LOOKS)
        server.stop()

    def _watch_master(self, server: Server) -> None:
        """End when the master has gone: it would kill a worker that does not stop (the body of an OS thread)."""
        # A carrier would assume that an unknown OS thread may unpark its threads.
        own_os_threads.add(get_ident())
        try:
            while self.ppid == os.getppid():
                os_sleep(BETWEEN_LOOKS)
            server.stop()
            ForcedEnd().within(self.cfg.graceful_timeout + LAST_GRACE)
        finally:
            own_os_threads.discard(get_ident())

    # --- signals of the master

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Handle SIGTERM: finish what is under way."""
        super().handle_exit(sig, frame)
        if self._server is not None:
            self._server._shares_listeners = self._master_listens()
            self._server.stop()

    def _master_listens(self) -> bool:
        """Return whether the master has the listeners open, also if that cannot be found out.

        It closes them before it stops all workers, but not for a reload. Then no other process goes on to accept, and
        this worker must not close the listeners while connections still arrive: they would be reset.
        """
        assert self._server is not None
        ours = {os.fstat(listener.fileno()).st_ino for listener in self._server._listeners if listener.fileno() >= 0}
        folder = f"/proc/{self.ppid}/fd"
        theirs = set()
        try:
            for fd in os.listdir(folder):
                # It may have been closed meanwhile.
                with suppress(FileNotFoundError):
                    theirs.add(os.readlink(f"{folder}/{fd}"))
        except OSError:
            # Not Linux, or the master runs as another user.
            return True
        return any(f"socket:[{inode}]" in theirs for inode in ours)

    def handle_abort(self, sig: int, frame: Any) -> None:
        """Handle that the master has missed the heartbeat: write the stack of what runs, and end."""
        # A log record, or reading the source lines, may park this thread, and a pinned carrier never returns to it.
        stack = "".join(
            f'  File "{each.f_code.co_filename}", line {line}, in {each.f_code.co_name}\n'
            for each, line in traceback.walk_stack(frame)
        )
        write_fd(2, f"worker {self.pid} has no heartbeat; this runs (most recent call first):\n{stack}".encode())
        super().handle_abort(sig, frame)


def _flush_often() -> None:
    while True:
        sleep(BETWEEN_LOOKS)
        flush_outputs()


class _Request:
    """A request as the hooks and the access log of gunicorn see it."""

    def __init__(self, head: Any) -> None:
        self.method = head.method
        self.uri = head.target.decode("latin-1")
        self.path, _, self.query = self.uri.partition("?")
        self.fragment = ""
        self.version = (1, 1 if head.is_1_1 else 0)
        self.headers = [(name.decode("latin-1").upper(), value.decode("latin-1")) for name, value in head.fields]


class _Response:
    """A response as they see it."""

    def __init__(self) -> None:
        self.status = ""
        self.headers: list[tuple[str, str]] = []
        self.sent = 0

    @property
    def status_code(self) -> int:
        return int(self.status.split(None, 1)[0])


class _Sight(Sight):
    """Records the requests of a worker also for gunicorn."""

    __slots__ = ("_under_way", "_worker")

    def __init__(self, worker: Worker) -> None:
        super().__init__()
        self._worker = worker
        # By the thread that handles the request. The head would not do: equal requests at once share it.
        self._under_way: dict[Any, tuple[_Request, dict[str, Any], _Response]] = {}

    def watched(self, app: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
        """Return `app` with what gunicorn does around it."""
        worker, cfg = self._worker, self._worker.cfg

        def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            exchange = environ[EXCHANGE]
            environ["RAW_URI"] = environ["REQUEST_URI"]
            _check_limits(exchange.head, cfg)
            if not cfg.keepalive:
                exchange.response.keeps_alive = False
            request, response = _Request(exchange.head), _Response()
            self._under_way[current_thread()] = request, environ, response

            def start(status: str, fields: list[tuple[str, str]], exc_info: Any = None) -> Any:
                # An iterator gives its fields once.
                fields = list(fields)
                write = start_response(status, fields, exc_info)
                # After the call: the record cannot show a status or fields that it refused.
                response.status, response.headers = status, fields
                return write

            cfg.pre_request(worker, request)
            return app(environ, start)

        return application

    def ended(self, client: str, request_id: str, head: Any, status: int, seconds: float, sent: int) -> None:
        """Record a request, also in the access log of gunicorn, and call its hook."""
        super().ended(client, request_id, head, status, seconds, sent)
        if head is None:
            return
        # A request that was refused did not come to the application.
        found = self._under_way.pop(current_thread(), None)
        request, environ, response = found or (_Request(head), {}, _Response())
        response.sent = sent
        if not response.status.startswith(str(status)):
            response.status = str(status)
        shown = environ or {
            "REMOTE_ADDR": client,
            "REQUEST_METHOD": request.method,
            "RAW_URI": request.uri,
            "PATH_INFO": request.path,
            "QUERY_STRING": request.query,
            "SERVER_PROTOCOL": f"HTTP/1.{request.version[1]}",
        }
        worker = self._worker
        worker.log.access(response, request, shown, timedelta(seconds=seconds))
        if environ:
            try:
                worker.cfg.post_request(worker, request, environ, response)
            except Exception:  # logged: the connection may have further requests
                worker.log.exception("post_request failed for %s %s", request.method, request.uri)


def _check_limits(head: Any, cfg: Any) -> None:
    """Refuse a request beyond the limits of gunicorn, where these are the smaller ones; 0 means none."""
    line = len(head.method) + len(head.target) + len("  HTTP/1.1\r\n")
    if 0 < cfg.limit_request_line < line:
        raise Refusal(414, f"the request line is longer than {cfg.limit_request_line} bytes")
    if 0 < cfg.limit_request_fields < len(head.fields):
        raise Refusal(431, f"more than {cfg.limit_request_fields} header fields")
    if any(0 < cfg.limit_request_field_size < len(name) + len(value) + 4 for name, value in head.fields):
        raise Refusal(431, f"a header field is longer than {cfg.limit_request_field_size} bytes")
