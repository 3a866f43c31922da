"""`serve.wsgi`: an application of PEP 3333 on the HTTP server. This module does not depend on sockets."""

from __future__ import annotations

import io
import os
import ssl
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import IO, Any, Literal

from .._core.arguments import checked_seconds
from ._access_log import AccessLog
from ._addresses import Address, FdAddress
from ._limits import Limits
from ._listeners import open_listeners
from ._log_lines import FORMATS
from ._proxies import TrustedProxies
from ._server import Server
from ._sight import Sight
from ._stopping import stopped_by_sigterm
from ._tcp import DEFAULT_BACKLOG, where
from ._upgraded_socket import UpgradedSocket
from ._websocket import EXCHANGE

__all__ = ["WsgiOptions", "serve_application", "wsgi"]

# The modules of the classes whose `read` gives the bytes of the descriptor.
PLAIN_MODULES = {"_io", "tempfile"}

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def wsgi(
    app: Application,
    host: str | None = None,
    port: int | None = None,
    *,
    bind: Iterable[str] = (),
    limits: Limits | None = None,
    tls: ssl.SSLContext | None = None,
    root_path: str = "",
    half_close: bool = False,
    cancel_when_gone: bool = True,
    drain: float = 30.0,
    drain_delay: float = 0.0,
    backlog: int = DEFAULT_BACKLOG,
    reuse_port: bool = False,
    trusted_proxies: Iterable[str] = (),
    forwarded_fields: Literal["x-forwarded", "forwarded"] = "x-forwarded",
    proxy_protocol: bool = False,
    access_log: IO[str] | None = None,
    access_log_format: Literal["json", "common"] = "json",
    ready: Callable[[Server], object] | None = None,
) -> None:
    """Serve the WSGI application `app` over HTTP/1.1 until the server is stopped.

    Each request is handled in a virtual thread and within its limits; see `Limits`. `Server.stop` stops the server: it
    accepts no more connections, serves those that wait in the backlog, announces the end of connections in its
    responses, and makes `vthreads.stopping()` true for the handlers. After `drain` seconds it cancels the handlers. A
    cancellation of the caller cancels them at once. SIGTERM does the same as `Server.stop`, unless the program handles
    it, but only if the main thread calls this function; for a server in a spawned thread, call `Server.stop` in a
    signal handler of the program.

    Needs `vthreads[serve]`. A checkpoint; starts the runtime.

    Args:
        app: the application; called by many virtual threads at once.
        host: the name or address to listen on; "" means all addresses.
        port: the port; 0 means a free one, see `ready`.
        bind: further addresses: "host:port", "[v6]:port", "unix:/path" or "fd://3", a descriptor that listens.
        limits: the limits; None: the defaults.
        tls: a context for the server's side of TLS.
        root_path: the path below which the application is mounted: SCRIPT_NAME.
        half_close: answer a client that has shut down its sending side, however long that takes.
        cancel_when_gone: cancel the handler of a client that has gone.
        drain: seconds that requests may take after the stop.
        drain_delay: seconds from the stop to the end of accepting.
        backlog: connections that may wait in the kernel until they are accepted.
        reuse_port: listen beside other processes that do the same.
        trusted_proxies: addresses and networks of proxies, as "10.0.0.0/8", or "unix": their requests may name the
            client and the request id in fields. Such fields of other peers are dropped.
        forwarded_fields: the fields that those proxies set: "x-forwarded" (X-Forwarded-For, -Proto, -Host, -Port) or
            "forwarded" (RFC 7239). The other ones are dropped.
        proxy_protocol: connections of trusted proxies begin with a header of the PROXY protocol, version 1 or 2.
        access_log: a text stream that gets a line for each request, written by an OS thread; None: no access log.
        access_log_format: "json", or "common" for the combined format of Apache and nginx.
        ready: called with the `Server` when it listens, for its `addresses` and its `stop`.

    Raises:
        ImportError: httptools is not installed.
        TypeError: `app` is not callable.
        ValueError: there is no address to listen on, or an argument is out of range.
        OSError: an address cannot be used.
    """
    if not callable(app):
        raise TypeError(f"wsgi({app!r}): the application is not callable; pass a WSGI application")
    if access_log_format not in FORMATS:
        raise ValueError(f"access_log_format={access_log_format!r} must be one of {', '.join(FORMATS)}")
    log = None if access_log is None else AccessLog(access_log, access_log_format)
    options = WsgiOptions(
        limits=limits or Limits(),
        tls=tls,
        root_path=root_path,
        half_close=half_close,
        cancel_when_gone=cancel_when_gone,
        drain=checked_seconds(drain, "drain"),
        drain_delay=checked_seconds(drain_delay, "drain_delay"),
        backlog=backlog,
        reuse_port=reuse_port,
        trusted_proxies=trusted_proxies,
        forwarded_fields=forwarded_fields,
        proxy_protocol=proxy_protocol,
        sight=Sight(access_log=log),
    )
    try:
        serve_application(app, where(host, port, bind), options, ready)
    finally:
        if log is not None:
            log.close()


@dataclass(slots=True, kw_only=True)
class WsgiOptions:
    """Options of `serve_application`: those of `wsgi`, and those that the command adds.

    Attributes:
        multiprocess: other processes serve the same application.
        sight: records each request.
    """

    limits: Limits
    tls: ssl.SSLContext | None = None
    root_path: str = ""
    half_close: bool = False
    cancel_when_gone: bool = True
    drain: float = 30.0
    drain_delay: float = 0.0
    backlog: int = DEFAULT_BACKLOG
    reuse_port: bool = False
    multiprocess: bool = False
    trusted_proxies: Iterable[str] = ()
    forwarded_fields: Literal["x-forwarded", "forwarded"] = "x-forwarded"
    proxy_protocol: bool = False
    sight: Sight = field(default_factory=Sight)


def serve_application(
    app: Application,
    addresses: list[Address],
    options: WsgiOptions,
    ready: Callable[[Server], object] | None,
) -> None:
    """Serve `app` at `addresses`; see `wsgi`. A checkpoint."""
    from ._http.adapters import Adapter
    from ._http.connections import HttpConnection
    from ._http.options import HttpOptions

    with open_listeners(addresses, backlog=options.backlog, reuse_port=options.reuse_port) as listeners:
        adapter = Adapter(app, _base(listeners[0].getsockname(), options), FileWrapper, UpgradedSocket, EXCHANGE)
        http = HttpOptions(
            adapter.handle,
            options.limits,
            options.tls,
            options.half_close,
            options.cancel_when_gone,
            options.sight,
            TrustedProxies(options.trusted_proxies, options.forwarded_fields),
            options.proxy_protocol,
        )
        server = Server.__new__(Server)._init_server(
            listeners,
            partial(HttpConnection, http),
            max_connections=options.limits.connections,
            drain=options.drain,
            drain_delay=options.drain_delay,
            backlog=options.backlog,
            shares_listeners=any(isinstance(address, FdAddress) for address in addresses),
        )
        with stopped_by_sigterm(server.stop):
            server._run(ready)


def _base(address: Any, options: WsgiOptions) -> dict[str, Any]:
    """Return the part of `environ` that all requests share."""
    # A Unix socket has a path, and no port.
    name, port = address[:2] if isinstance(address, tuple) else ("localhost", "")
    return {
        "SCRIPT_NAME": options.root_path.rstrip("/"),
        "SERVER_NAME": name,
        "SERVER_PORT": str(port),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http" if options.tls is None else "https",
        "wsgi.multithread": True,
        "wsgi.multiprocess": options.multiprocess,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
        "wsgi.file_wrapper": FileWrapper,
    }


class FileWrapper:
    """`wsgi.file_wrapper`: a file as an iterable; a regular file is sent by the kernel if the connection has no TLS."""

    def __init__(self, file: Any, block_size: int = 64 << 10) -> None:
        self._file = file
        self._block_size = block_size
        if hasattr(file, "close"):
            self.close = file.close

    def __iter__(self) -> Iterator[bytes]:
        while data := self._file.read(self._block_size):
            yield data

    def regular_file(self) -> tuple[Any, int] | None:
        """Return the file, and the bytes from its position to its end; None if it is not a regular file on a disk."""
        raw = getattr(self._file, "raw", self._file)
        # Others have a descriptor as well, but of other bytes: `gzip.GzipFile` that of the compressed ones. A class of
        # the program may do the same in its `read`.
        if not isinstance(raw, io.FileIO) or not {type(self._file).__module__, type(raw).__module__} <= PLAIN_MODULES:
            return None
        try:
            found = os.fstat(self._file.fileno())
            # Buffered data would be at another position than the descriptor.
            position = self._file.tell()
        except (AttributeError, OSError, io.UnsupportedOperation):
            return None
        # The size of a file without blocks says nothing: files of /proc have 0, those of /sys 4096.
        if not stat.S_ISREG(found.st_mode) or not found.st_blocks:
            return None
        return self._file, max(found.st_size - position, 0)
