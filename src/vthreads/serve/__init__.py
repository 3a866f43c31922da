"""Servers of plain blocking functions: `tcp` for connections, `wsgi` for web applications over HTTP/1.1.

    from vthreads import serve

    serve.wsgi(app, "127.0.0.1", 8000)

The rules, by which the modules of this package are written:

- **Owners.** The caller of `tcp` or `wsgi` owns the server; the server owns a group with `on_failure="report"`; the
  group owns the threads of connections; a connection owns the scope of the request that it handles. A failure ends the
  innermost owner that it can: a request (500), a connection, and the server only if a listener fails.
- **A deadline** belongs to the request, not to its connection. It cancels the handler, which then has 2 seconds of
  cleanup; the `close()` of a WSGI response runs in it. The client gets 504 if no byte of a response was sent.
- **A broken response** ends its connection: no response ever follows one that is not complete. The same holds for a
  request whose end is not known.
- **Refused** requests get a response of the server, then the connection closes after the client has had time to read
  it. A request that follows a refused one is not served.
- **An upgrade** gives the connection to another protocol until the handler returns. Its response is dropped.
- **Drain** counts connections. After the stop each response closes its connection, an idle connection closes after 2
  seconds, and the server ends when none is left, or cancels them after `drain` seconds.

`tcp` needs nothing but vthreads; `wsgi` needs httptools, and `websocket` websockets: `vthreads[serve]`.
"""

from ._deadlines import set_deadline
from ._limits import Limits
from ._request_ids import RequestIdFilter, request_id
from ._server import Server
from ._tcp import tcp
from ._websocket import WebSocket, WebSocketClosed, websocket
from ._wsgi import wsgi

__all__ = [
    "Limits",
    "RequestIdFilter",
    "Server",
    "WebSocket",
    "WebSocketClosed",
    "request_id",
    "set_deadline",
    "tcp",
    "websocket",
    "wsgi",
]
