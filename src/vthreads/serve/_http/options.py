"""Options, counts and known heads that the connections of one HTTP server share."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from math import inf
from typing import Any

from .._limits import Limits
from .._proxies import TrustedProxies
from .._request_ids import RequestIds
from .._sight import Sight
from .known_heads import KnownHeads

__all__ = ["HttpOptions"]


class HttpOptions:
    """Options and counts that the connections of one server share.

    Args:
        application: handles a request: `application(exchange)` with its `Exchange`.
        limits: the limits.
        tls: a context for the server's side of TLS, or None.
        half_close: a client that has shut down its sending side is answered, however long that takes.
        cancel_when_gone: cancel the handler when the client has gone.
        sight: records each request.
        proxies: the proxies that may name their client.
        proxy_protocol: connections of trusted proxies begin with a header of the PROXY protocol.
    """

    __slots__ = (
        "application",
        "cancel_when_gone",
        "half_close",
        "heads",
        "ids",
        "in_flight",
        "limits",
        "most_in_flight",
        "oldest",
        "proxies",
        "proxy_protocol",
        "request_seconds",
        "sight",
        "tls",
        "write_timeout",
    )

    def __init__(
        self,
        application: Callable[[Any], None],
        limits: Limits,
        tls: ssl.SSLContext | None,
        half_close: bool,
        cancel_when_gone: bool,
        sight: Sight,
        proxies: TrustedProxies,
        proxy_protocol: bool,
    ) -> None:
        self.application = application
        self.limits = limits
        self.tls = tls
        self.half_close = half_close
        self.cancel_when_gone = cancel_when_gone
        self.sight = sight
        self.proxies = proxies
        self.proxy_protocol = proxy_protocol
        self.ids = RequestIds()
        # Requests that are handled now.
        self.in_flight = 0
        self.heads = KnownHeads()
        # The limits that each request asks for.
        self.most_in_flight = limits.in_flight
        self.oldest = limits.age_seconds
        self.request_seconds = limits.request_seconds
        # As the timeout of a socket.
        self.write_timeout = limits.write_seconds if limits.write_seconds < inf else None
