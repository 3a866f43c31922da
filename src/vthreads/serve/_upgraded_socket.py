"""The socket of an upgraded request, for libraries that speak their protocol themselves, such as simple-websocket.

The server does not know what such a library does, except for WebSocket: then it follows the frames that are sent, so
that it can send a close frame between two of them when it stops.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from .._core.on_demand import ModuleOnDemand
from .._sync.locks import Lock
from .._timeouts import move_on_after
from ._frames import CLOSE_GOING_AWAY, SentFrames

if TYPE_CHECKING:
    from ._http import exchanges
else:
    # It needs httptools, which a server without HTTP does not.
    exchanges = ModuleOnDemand("vthreads.serve._http.exchanges")

__all__ = ["UpgradedSocket"]

# Seconds for the close frame of the client, after that of the server.
HURRY_SECONDS = 5.0


class UpgradedSocket:
    """The socket of a request that asks for an upgrade; its first use is the upgrade.

    Libraries find it under `gunicorn.socket` in the environment. They speak their protocol themselves. If that is
    WebSocket, the server sends a close frame when it stops, at the end of a frame of the library.
    """

    __slots__ = ("_exchange", "_frames", "_sending")

    def __init__(self, exchange: exchanges.Exchange) -> None:
        self._exchange = exchange
        self._frames = SentFrames()
        # Keeps the frames whole: the close frame is sent by another thread.
        self._sending = Lock()

    def __repr__(self) -> str:
        return f"<UpgradedSocket of {self._exchange!r}>"

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Return data of the client, at first those that were received with the request."""
        source = self._exchange.stream.input
        if len(source) and not flags:
            return source.take(size)
        return self._sock.recv(size, flags)  # type: ignore[no-any-return]  # a method of a socket

    def send(self, data: Any, flags: int = 0) -> int:
        """Send a part of `data`; return its size. A checkpoint."""
        sock = self._sock
        with self._sending:
            size: int = sock.send(data, flags)
            self._frames.add(bytes(memoryview(data).cast("B")[:size]))
            return size

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send `data`. A checkpoint."""
        sock = self._sock
        with self._sending:
            sock.sendall(data, flags)
            self._frames.add(bytes(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    @property
    def _sock(self) -> Any:
        exchange = self._exchange
        if not exchange.is_upgraded:
            exchange.upgrade()
            exchange.response.set_upgraded(101)
            if exchange.head.upgrade.lower() == b"websocket":
                exchange.hurry_upgraded = self._hurry
        return exchange.stream.sock

    def _hurry(self) -> None:
        """Handle that the server stops: close with 1001, and end the connection if the client does not. A checkpoint.

        Called in another thread than the handler's.
        """
        with self._sending, contextlib.suppress(OSError):
            if self._frames.are_complete and not self._frames.is_closed:
                self._exchange.stream.sock.sendall(CLOSE_GOING_AWAY)
                self._frames.add(CLOSE_GOING_AWAY)
        with move_on_after(HURRY_SECONDS):
            self._exchange.ended.wait()
            return
        self._exchange.stream.shut_down()
