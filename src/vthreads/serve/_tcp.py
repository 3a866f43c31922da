"""`serve.tcp`: a function for each connection."""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Callable, Iterable
from functools import partial
from math import inf
from typing import Any

from .._core.arguments import check_function, checked_seconds
from .._timeouts import fail_after
from ._addresses import Address, FdAddress, TcpAddress, parse_address
from ._limits import Limits
from ._listeners import open_listeners
from ._server import Server
from ._stopping import stopped_by_sigterm

__all__ = ["DEFAULT_BACKLOG", "handshaken", "tcp", "where"]

log = logging.getLogger("vthreads.serve")

DEFAULT_BACKLOG = 2048
HANDSHAKE_SECONDS = Limits().handshake_seconds


def tcp(
    handler: Callable[[socket.socket], object],
    host: str | None = None,
    port: int | None = None,
    *,
    bind: Iterable[str] = (),
    tls: ssl.SSLContext | None = None,
    max_connections: float = 10_000,
    drain: float = 30.0,
    drain_delay: float = 0.0,
    backlog: int = DEFAULT_BACKLOG,
    reuse_port: bool = False,
    ready: Callable[[Server], object] | None = None,
) -> None:
    """Accept connections and call `handler(sock)` for each in a virtual thread, until the server is stopped.

    The server closes the socket after the handler. A failure of the handler is reported through `threading.excepthook`
    and ends its connection only. `Server.stop` stops the server: it accepts no more connections, serves those that wait
    in the backlog, and makes `vthreads.stopping()` true for the handlers. After `drain` seconds it cancels the
    handlers. A cancellation of the caller cancels the handlers at once. SIGTERM does the same as `Server.stop`, unless
    the program handles it, but only if the main thread calls this function; for a server in a spawned thread, call
    `Server.stop` in a signal handler of the program.

    A checkpoint; starts the runtime.

    Args:
        handler: called with a connected socket. With `tls` it is an `ssl.SSLSocket` after the handshake.
        host: the name or address to listen on; "" means all addresses.
        port: the port; 0 means a free one, see `ready`.
        bind: further addresses: "host:port", "[v6]:port", "unix:/path" or "fd://3", a descriptor that listens.
        tls: a context for the server's side of TLS.
        max_connections: connections that are open at once; the server accepts no more until one leaves. 0: no limit.
        drain: seconds that handlers may take after the stop.
        drain_delay: seconds from the stop to the end of accepting.
        backlog: connections that may wait in the kernel until they are accepted.
        reuse_port: listen beside other processes that do the same.
        ready: called with the `Server` when it listens, for its `addresses` and its `stop`.

    Raises:
        TypeError: calling `handler` would have no effect.
        ValueError: there is no address to listen on, or an argument is out of range.
        OSError: an address cannot be used.
    """
    check_function(handler, "tcp")
    addresses = where(host, port, bind)
    with open_listeners(addresses, backlog=backlog, reuse_port=reuse_port) as listeners:
        server = Server.__new__(Server)._init_server(
            listeners,
            partial(_PlainConnection, handler, tls),
            max_connections=max_connections or inf,
            drain=checked_seconds(drain, "drain"),
            drain_delay=checked_seconds(drain_delay, "drain_delay"),
            backlog=backlog,
            shares_listeners=any(isinstance(address, FdAddress) for address in addresses),
        )
        with stopped_by_sigterm(server.stop):
            server._run(ready)


def where(host: str | None, port: int | None, bind: Iterable[str]) -> list[Address]:
    """Return the addresses that the arguments of a server name."""
    if (host is None) != (port is None):
        raise ValueError(f"host={host!r}, port={port!r}: give both, or addresses in bind")
    first: list[Address] = [] if host is None or port is None else [TcpAddress(host, port)]
    addresses = [*first, *map(parse_address, bind)]
    if not addresses:
        raise ValueError("no address to listen on; give host and port, or addresses in bind")
    return addresses


def handshaken(sock: socket.socket, tls: ssl.SSLContext | None, seconds: float) -> socket.socket | None:
    """Return `sock` after the handshake of `tls` (None: `sock` itself), or None if the handshake failed. A checkpoint.

    Scanners and clients with other versions cause many failures, so these are not reported as failures of a thread.
    """
    if tls is None:
        return sock
    # `wrap_socket` with a handshake closes its socket after an `OSError`, but not after a cancellation.
    wrapped = tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
    try:
        with fail_after(seconds):
            wrapped.do_handshake()
        return wrapped
    except OSError as error:
        # Also `ssl.SSLError` and `TimeoutError`.
        wrapped.close()
        log.debug("TLS handshake failed: %s", error)
        return None
    except BaseException:
        # Most often `Cancelled`, when the server stops. The caller has only the plain socket, which is detached.
        wrapped.close()
        raise


class _PlainConnection:
    """A connection that is under way from its begin to its end."""

    __slots__ = ("_handler", "_server", "_sock", "_tls")

    def __init__(
        self,
        handler: Callable[[socket.socket], object],
        tls: ssl.SSLContext | None,
        server: Server,
        sock: socket.socket,
        address: Any,
    ) -> None:
        self._handler = handler
        self._tls = tls
        self._server = server
        self._sock = sock

    def run(self) -> None:
        try:
            sock = handshaken(self._sock, self._tls, HANDSHAKE_SECONDS)
            if sock is not None:
                self._sock = sock
                self._handler(sock)
        finally:
            self.close()

    def hurry(self) -> None:
        """Do nothing: the handler asks `vthreads.stopping()`."""

    def close(self) -> None:
        self._sock.close()
        self._server._forget(self)
