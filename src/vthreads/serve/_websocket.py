"""WebSocket (RFC 6455) for handlers of `serve.wsgi`, on the sans-I/O part of the package websockets.

Messages of one frame without anything unusual do not pass through that package, see `_frames`.

    OPEN ──close frame sent──> CLOSING ──close frame of the client, its end, or close_seconds──> CLOSED
      └──close frame of the client (answered), its end, or a fault of the client───────────────────^

The thread that calls `receive` also answers pings and sends those of the server, so an open WebSocket needs no second
thread. Only when data arrive while the handler waits elsewhere, a thread reads them, answers pings and the close frame,
keeps the messages for `receive`, and ends. Any thread may send: a lock keeps frames whole. A send that was broken off
leaves half a frame, so it ends the connection.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from math import inf
from typing import TYPE_CHECKING, Any, Self

from .._core.arguments import checked_seconds
from .._core.copies import refuse_creation
from .._core.on_demand import ModuleOnDemand
from .._core.runtime import now
from .._sync.events import Event
from .._sync.locks import Lock
from .._timeouts import move_on_after
from ._frames import (
    GOING_AWAY,
    MOST_IN_2_BYTES,
    TEXT,
    data_frame,
    payload_of,
    size_of,
)
from ._http.refusals import Disconnected

if TYPE_CHECKING:
    from websockets.frames import Frame

    from ._http import exchanges
else:
    # It needs httptools, which a server without HTTP does not.
    exchanges = ModuleOnDemand("vthreads.serve._http.exchanges")

__all__ = ["EXCHANGE", "WebSocket", "WebSocketClosed", "websocket"]

# The key of the environment under which a handler's exchange is found.
EXCHANGE = "vthreads.serve.exchange"
# Close codes of RFC 6455, 7.4.1.
NORMAL, ABNORMAL, NOT_TEXT = 1000, 1006, 1007
# Messages that are kept for a handler that waits elsewhere: their bytes, and what each counts beside those. Beyond it
# nothing is read, so that the client is slowed down.
MOST_KEPT, EACH_KEPT = 64 << 10, 64


class WebSocketClosed(Disconnected):
    """The WebSocket is closed.

    Attributes:
        code: the close code of the client, else that of the server; 1006 if the connection was lost.
        reason: the text beside it.
    """

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(f"the WebSocket is closed: {code} {reason}".rstrip())
        self.code = code
        self.reason = reason


def websocket(
    environ: dict[str, Any],
    *,
    origins: Sequence[str] | None = None,
    subprotocols: Sequence[str] | None = None,
    max_bytes: int = 1 << 20,
    ping_seconds: float | None = 20.0,
    pong_seconds: float | None = 20.0,
    close_seconds: float | None = 5.0,
) -> WebSocket:
    """Upgrade the request of `environ` to a WebSocket and return it.

    The deadline of the request ends with the upgrade. The response of the handler is dropped; when the handler returns,
    the WebSocket is closed with 1000, and after a failure with 1011. When the server stops, it is closed with 1001.

    A checkpoint; call it in the thread of the request.

    Args:
        environ: the WSGI environment of a request to `serve.wsgi`.
        origins: values of Origin that are accepted; others get 403. None: all. A browser sends its cookies from any
            site, so name the origins if the handler trusts cookies.
        subprotocols: subprotocols of the server, the preferred one first.
        max_bytes: size of a message of the client; above it the WebSocket is closed with 1009.
        ping_seconds: `receive` sends a ping after this time without data. None: no pings.
        pong_seconds: a client that sends nothing for this time after a ping is lost. None: no limit.
        close_seconds: for the close frame of the client after that of the server.

    Raises:
        RuntimeError: the request does not come from `serve.wsgi`, or it was upgraded or answered before.
        WebSocketClosed: the request was refused: it does not ask for a WebSocket, or breaks the protocol.
    """
    exchange: exchanges.Exchange | None = environ.get(EXCHANGE)
    if exchange is None:
        raise RuntimeError(
            "websocket(environ): the environment is not of a request to vthreads.serve.wsgi; pass the one that the "
            "application has got"
        )
    try:
        from websockets.server import ServerProtocol
        from websockets.typing import Origin, Subprotocol

        try:
            from websockets.speedups import apply_mask
        except ImportError:
            # A build without C code.
            from websockets.utils import apply_mask
    except ImportError as error:
        raise ImportError("WebSocket needs websockets: install vthreads[serve]", name="websockets") from error
    times = [
        checked_seconds(ping_seconds, "ping_seconds"),
        checked_seconds(pong_seconds, "pong_seconds"),
        checked_seconds(close_seconds, "close_seconds"),
    ]
    protocol = ServerProtocol(
        origins=None if origins is None else [*map(Origin, origins)],
        subprotocols=None if subprotocols is None else [*map(Subprotocol, subprotocols)],
        max_size=max_bytes,
    )
    exchange.upgrade()
    opened = WebSocket.__new__(WebSocket)._init_opened(exchange, protocol, apply_mask, max_bytes, times)
    opened._shake_hands()
    return opened


class WebSocket:
    """An open WebSocket. Created by `websocket`.

    Attributes:
        subprotocol: the subprotocol that was agreed on, or None.
    """

    def __init__(self, *_: object, **__: object) -> None:
        refuse_creation(self, "serve.websocket creates it, in a handler; a client needs a library such as websockets")

    # `Any`: type checkers of programs that use this class need not know the types of an exchange.
    def _init_opened(
        self,
        exchange: Any,
        protocol: Any,
        unmask: Callable[[bytes, bytes], bytes],
        max_bytes: int | None,
        times: Sequence[float],
    ) -> Self:
        self._exchange: exchanges.Exchange = exchange
        self._protocol = protocol
        self._unmask = unmask
        # Of a message that this class parses; the protocol has the limit of the others.
        self._most_bytes = MOST_IN_2_BYTES if max_bytes is None else min(max_bytes, MOST_IN_2_BYTES)
        self._ping_seconds, self._pong_seconds, self._close_seconds = times
        self._messages: deque[str | bytes] = deque()
        # The frames of a message that is not complete.
        self._parts: list[bytes] = []
        self._is_text = False
        # Bytes that the protocol has received and not returned as frames: 0 between two frames.
        self._unparsed = 0
        self._sending = Lock()
        # Set when the thread has ended that reads while the handler waits elsewhere; None: there is none.
        self._taken_in: Event | None = None
        # When the last ping was sent that nothing has followed.
        self._pinged_at = inf
        # No more messages can come, and none can be sent.
        self._has_ended = False
        self._is_broken = False
        return self

    def __repr__(self) -> str:
        return f"<WebSocket {'closed' if self._has_ended else 'open'} {self._exchange!r}>"

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that was agreed on, or None."""
        return self._protocol.subprotocol  # type: ignore[no-any-return]  # a string

    # --- for the handler

    def receive(self, timeout: float | None = None) -> str | bytes:
        """Return the next message: `str` if it is text, `bytes` if it is binary.

        A checkpoint; one thread at a time may call it. A cancelled or timed-out call loses no message.

        Args:
            timeout: seconds; None: no limit.

        Raises:
            TimeoutError: no message came within `timeout`.
            WebSocketClosed: the WebSocket is closed, and all messages before that were returned.
        """
        messages = self._messages
        if not messages:
            until = now() + checked_seconds(timeout, "timeout") if timeout is not None else inf
            while not messages:
                if self._has_ended:
                    raise self._closed()
                self._receive_some(until)
        return messages.popleft()

    def __iter__(self) -> Iterator[str | bytes]:
        """Yield the messages until the WebSocket is closed."""
        while True:
            try:
                message = self.receive()
            except WebSocketClosed:
                return
            yield message

    def send(self, data: str | bytes | bytearray | memoryview) -> None:
        """Send a message: text if `data` is `str`, else binary. A checkpoint; threads of the server's carrier may call.

        Raises:
            WebSocketClosed: the WebSocket is closed or closing, or the client reads nothing for the time of a write.
        """
        payload: bytes
        if isinstance(data, str):
            payload = data.encode()
        elif type(data) is bytes:
            payload = data
        else:
            payload = bytes(memoryview(data))
        with self._sending:
            self._check_open()
            self._send_all(data_frame(payload, isinstance(data, str)))

    def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Send a close frame; the messages that come before the client's own one can still be received.

        Does nothing if it is closing or closed. A checkpoint; as thread-safe as `send`.

        Args:
            code: 1000 to 1003, 1007 to 1014 or 3000 to 4999; those of an application begin at 4000.
            reason: a text of at most 123 bytes in UTF-8.

        Raises:
            ValueError: `code` cannot be sent, or `reason` is too long. The WebSocket stays open.
        """
        from websockets.exceptions import ProtocolError

        with self._sending:
            if not self._is_open():
                return
            try:
                self._protocol.send_close(code, reason)
            except ProtocolError as error:
                raise ValueError(
                    f"close(code={code!r}, reason={reason!r}): {error}; use 1000 to 1003, 1007 to 1014 or 3000 to "
                    "4999, and a reason of at most 123 bytes"
                ) from None
            # The client may be gone already.
            with contextlib.suppress(WebSocketClosed):
                self._flush()

    # --- for the exchange

    def end(self, code: int) -> None:
        """Close, and wait for the close frame of the client, within the time for that. A checkpoint."""
        self.close(code)
        until = now() + self._close_seconds
        with contextlib.suppress(TimeoutError, WebSocketClosed):
            while not self._has_ended:
                self._messages.clear()
                self._receive_some(until)

    def hurry(self) -> None:
        """Handle that the server stops: close with 1001, and end the connection if the client does not. A checkpoint.

        Called in another thread than the handler's, which may wait in `receive`.
        """
        self.close(GOING_AWAY, "the server stops")
        with move_on_after(self._close_seconds):
            self._exchange.ended.wait()
        if not self._has_ended:
            self._exchange.stream.shut_down()

    # --- the protocol

    def _shake_hands(self) -> None:
        head = self._exchange.head
        lines = [b"%b %b HTTP/1.1" % (head.method.encode(), head.target)]
        lines += [b"%b: %b" % field for field in head.fields]
        protocol = self._protocol
        protocol.receive_data(b"\r\n".join([*lines, b"", b""]))
        requests = protocol.events_received()
        response = protocol.accept(requests[0]) if requests else protocol.reject(400, "not a WebSocket handshake\n")
        protocol.send_response(response)
        self._exchange.response.set_upgraded(response.status_code)
        if response.status_code != 101:
            self._has_ended = True
        with self._sending:
            self._flush()
        if self._has_ended:
            raise WebSocketClosed(ABNORMAL, f"the handshake was refused with {response.status_code}")
        self._exchange.end_upgraded = self.end
        self._exchange.hurry_upgraded = self.hurry
        self._exchange.take_in_upgraded = self._take_in
        if self._exchange.connection.server.is_stopping:
            self._exchange.connection.hurry()

    def _receive_some(self, until: float) -> None:
        """Wait for data of the client and handle them; raise `TimeoutError` at `until`."""
        if self._taken_in is not None:
            if not self._taken_in.wait(None if until == inf else max(until - now(), 0.0)):
                raise TimeoutError("no message came in time")
            return
        exchange = self._exchange
        source = exchange.stream.input
        if not len(source):
            try:
                exchange.receive(self._seconds_to_wait(until))
            except TimeoutError:
                if now() >= until:
                    raise
                self._ping()
                return
            except OSError:
                self._handle(b"")
                return
        self._pinged_at = inf
        self._handle(source.take(len(source)))

    def _take_in(self) -> None:
        """Handle what has arrived while the handler does not receive (the body of a thread)."""
        exchange = self._exchange
        if self._taken_in is not None or exchange.reads_itself or exchange.ended.is_set():
            return
        self._taken_in = taken_in = Event()
        try:
            is_watched = self._take_in_all()
        finally:
            self._taken_in = None
            taken_in.set()
        if self._has_ended:
            exchange.take_in_upgraded = None
        if not is_watched:
            exchange.connection.examine_client()

    def _take_in_all(self) -> bool:
        """Read until nothing is left; return whether further data are reported."""
        connection, stream = self._exchange.connection, self._exchange.stream
        source = stream.input
        while not self._has_ended and self._may_keep:
            try:
                stream.receive(0.0)
            except TimeoutError:
                if connection.watch_for_data():
                    return True
                continue
            except OSError:
                # The client has gone. Its connection notices that, and cancels the handler.
                return False
            self._pinged_at = inf
            self._handle(source.take(len(source)))
        return False

    @property
    def _may_keep(self) -> bool:
        return sum(len(message) + EACH_KEPT for message in self._messages) < MOST_KEPT

    def _seconds_to_wait(self, until: float) -> float | None:
        """Return the seconds to the next ping, to the loss of the client, or to `until`; None: no limit."""
        at = now()
        alarm = at + self._ping_seconds if self._pinged_at == inf else self._pinged_at + self._pong_seconds
        soonest = min(until, alarm)
        return None if soonest == inf else max(soonest - at, 0.0)

    def _ping(self) -> None:
        """Send a ping, or treat the client as lost if it has not answered the last one."""
        if self._pinged_at < inf:
            if now() >= self._pinged_at + self._pong_seconds:
                self._has_ended = True
                self._exchange.stream.reset_at_close()
            return
        with self._sending:
            if self._is_open():
                self._protocol.send_ping(b"")
                with contextlib.suppress(WebSocketClosed):
                    self._flush()
        self._pinged_at = now()

    def _handle(self, data: bytes) -> None:
        """Pass `data` (none: the end) to the protocol, and take the messages out of it."""
        protocol = self._protocol
        at = 0
        if data and not self._unparsed and not self._parts:
            at = self._take_whole(data)
            if at == len(data) and not self._has_ended:
                return
        if data:
            protocol.receive_data(data[at:])
            self._unparsed += len(data) - at
        else:
            protocol.receive_eof()
        for frame in protocol.events_received():
            # A client may send a longer header than necessary, of which this subtracts a part only. Then 0 is not
            # reached again, and the package parses all that follows.
            self._unparsed -= size_of(len(frame.data))
            if not self._has_ended:
                self._take(frame)
        if not data or protocol.close_rcvd is not None or protocol.parser_exc is not None:
            self._has_ended = True
        # Pongs, the answer to a close frame, or the report of a fault.
        if protocol.writes:
            with self._sending, contextlib.suppress(WebSocketClosed):
                self._flush()

    def _take_whole(self, data: bytes) -> int:
        """Take the messages at the begin of `data` that are one usual frame each; return where the rest begins."""
        at = 0
        while (payload := payload_of(data, at, self._most_bytes, self._unmask)) is not None:
            self._is_text = data[at] & 0x0F == TEXT
            self._keep(payload)
            at += size_of(len(payload))
            if self._has_ended:
                break
        return at

    def _take(self, frame: Frame) -> None:
        opcode = frame.opcode
        # 0: continuation, 1: text, 2: binary; the others are control frames, which the protocol has handled.
        if opcode > 2:
            return
        if opcode:
            self._is_text = opcode == 1
        data: bytes = bytes(frame.data)
        if not frame.fin:
            self._parts.append(data)
            return
        if self._parts:
            data = b"".join([*self._parts, data])
            self._parts.clear()
        self._keep(data)

    def _keep(self, message: bytes) -> None:
        """Keep a message for `receive`."""
        if not self._is_text:
            self._messages.append(message)
            return
        try:
            self._messages.append(message.decode())
        except UnicodeDecodeError:
            # RFC 6455, 8.1: such a message fails the connection.
            self._protocol.fail(NOT_TEXT, "a text message is not UTF-8")
            self._has_ended = True

    def _is_open(self) -> bool:
        return not self._has_ended and not self._is_broken and self._protocol.close_sent is None

    def _check_open(self) -> None:
        if not self._is_open():
            raise self._closed()

    def _closed(self) -> WebSocketClosed:
        protocol = self._protocol
        close = protocol.close_rcvd or (None if self._is_broken else protocol.close_sent)
        return WebSocketClosed(ABNORMAL) if close is None else WebSocketClosed(close.code, close.reason)

    def _flush(self) -> None:
        """Send what the protocol has to send. The caller holds the lock."""
        data = b"".join(self._protocol.data_to_send())
        if data and not self._is_broken:
            self._send_all(data)

    def _send_all(self, data: bytes) -> None:
        """Send `data`. The caller holds the lock."""
        # Half a frame may have been sent if this fails.
        self._is_broken = True
        try:
            self._exchange.stream.send(data)
        except OSError as error:
            raise WebSocketClosed(ABNORMAL, str(error)) from error
        self._is_broken = False
