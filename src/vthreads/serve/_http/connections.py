"""One HTTP connection: its requests in order, and its waits between them.

    WAITING ──head complete──> HANDLING ──response sent, may be kept──> WAITING
       │ └──1 s without a byte──> IDLE ──first byte──> WAITING (in a new thread)
       └──end, refusal, deadline──> LINGERING ──> CLOSED <──client gone, response broken── HANDLING

An IDLE connection has no thread: the poller watches it. While a request is handled, the same watch notices that the
client has gone, and cancels the scope of the request. One timer serves both: the end of an idle connection, and the
moment when a client that has shut down its sending side counts as gone.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
from contextvars import copy_context
from math import inf
from typing import Any

from ..._calls.net.watches import Watch
from ..._core.engine.timers import Timer
from ..._core.originals import poll
from ..._core.runtime import current_thread, now
from ..._timeouts import fail_after
from ...errors import GroupClosed
from .._deadlines import RequestScope
from .._proxies import Client, peer_of, read_proxy_header
from .._server import Server
from .._tcp import handshaken
from .bodies import NO_BODY
from .exchanges import Exchange
from .heads import Head
from .options import HttpOptions
from .parser import HeadParser
from .refusals import Disconnected, Refusal
from .responses import Phase, error_response
from .streams import LINGER_SECONDS, Stream

__all__ = ["HttpConnection"]

log = logging.getLogger("vthreads.serve")

# Why the scope of a request was cancelled, if not by its deadline.
CLIENT_GONE = "the client has gone"
# The status of such a request in the access log, as in that of nginx.
CLIENT_GONE_STATUS = 499
# Seconds without a byte after which the thread of a connection ends.
THREAD_WAITS = 1.0
GONE = select.POLLHUP | select.POLLERR | select.POLLNVAL
HALF_CLOSED = getattr(select, "POLLRDHUP", 0)


class HttpConnection:
    """A connection of an HTTP server; see `vthreads.serve._server` for its contract."""

    __slots__ = (
        "_began",
        "_direct",
        "_exchange",
        "_head",
        "_is_closed",
        "_is_idle",
        "_is_recorded",
        "_is_reported",
        "_now",
        "_parser",
        "_peer",
        "_timer",
        "_watch",
        "_written_before",
        "address",
        "client",
        "limits",
        "options",
        "request_id",
        "server",
        "stream",
    )

    def __init__(self, options: HttpOptions, server: Server, sock: socket.socket, address: Any) -> None:
        self.options = options
        self.limits = options.limits
        self.server = server
        self.address = address
        self.stream = Stream(sock, options)
        self._parser: HeadParser | None = None
        self._watch: Watch | None = None
        self._timer: Timer | None = None
        self._exchange: Exchange | None = None
        self._is_idle = False
        self._is_closed = False
        # Whether an event has ended the idle state, and the data of it are not read yet.
        self._is_reported = False
        # The peer or, by the PROXY protocol, the client that it names. Its fields count only if the peer is trusted.
        self._peer = peer_of(address)
        # The current request, for its record.
        self._direct = self.client = Client(self._peer[0] or "", self._peer[1], "", "", "", "", [])
        self.request_id = ""
        self._head: Head | None = None
        self._now = server._now
        self._is_recorded = True
        self._began = 0.0
        self._written_before = 0

    # --- the thread

    def run(self) -> None:
        """Handle requests until the connection ends or is idle (the body of a thread)."""
        self._set_timer(None)
        self._is_idle = False
        self._is_reported = self._watch is not None
        try:
            if self._begin():
                while self._serve():
                    pass
        except OSError as error:
            # Also `Disconnected` and errors of TLS. The client has gone, so no response can reach it.
            log.debug("connection of %s ended: %s", self.address, error)
        finally:
            if not self._is_idle:
                self.close()

    def _begin(self) -> bool:
        """Prepare the connection at its first run; return whether it can be used."""
        if self._watch is None:
            if self.options.proxy_protocol and self.options.proxies.trust(self._peer[0]):
                with fail_after(self.limits.header_seconds):
                    named = read_proxy_header(self.stream.sock)
                self._peer = named or self._peer
                self._direct = self.client._replace(host=self._peer[0] or "", port=self._peer[1])
            sock = handshaken(self.stream.sock, self.options.tls, self.limits.handshake_seconds)
            if sock is None:
                return False
            if sock is not self.stream.sock:
                self.stream = Stream(sock, self.options)
            self._watch = Watch(sock, self.server._scheduler, self._on_event)
        return True

    def _next_head(self) -> Head | None:
        """Wait for a request; return None if the connection is idle. Raises `Refusal` and `OSError`."""
        assert self._watch is not None
        stream = self.stream
        source = stream.input
        deadline = inf
        self._head = None
        while (raw := source.take_head()) is None:
            has_begun = len(source) > 0
            seconds = THREAD_WAITS
            if has_begun:
                deadline = min(deadline, now() + self.limits.header_seconds)
                seconds = max(deadline - now(), 0.0)
            if self._is_reported:
                # The data for which this thread was spawned. The time of their arrival counts.
                self._is_reported = False
            else:
                self._watch.arm(True)
            try:
                stream.receive(seconds)
            except TimeoutError:
                if has_begun:
                    raise Refusal(408, "the head did not arrive in time") from None
                if self._become_idle():
                    return None
        known = self.options.heads
        head = known.find(raw)
        if head is None:
            if self._parser is None:
                self._parser = HeadParser()
            head = self._parser.parse(raw)
            known.keep(raw, head)
        return head

    def _serve(self) -> bool:
        """Handle requests in one scope; return whether others may follow in another one.

        The scope is left before the end of its request if it was cancelled, or if the handler has left a scope open.
        """
        scope = RequestScope()
        exchange: Exchange | None = None
        refusal: Refusal | None = None
        try:
            with scope:
                thread = current_thread()
                while (head := self._next_head()) is not None:
                    exchange = self._begin_request(head, scope)
                    refusal = self._handle(exchange)
                    if scope._cancel_called or thread._innermost is not scope:
                        break
                    if not self._end_request(exchange, refusal):
                        return False
                    exchange = None
                else:
                    return False
            assert exchange is not None
            if scope.cancelled_caught:
                refusal = self._end_cancelled(exchange)
            return self._end_request(exchange, refusal)
        except Refusal as wrong:
            if self._head is None:
                # No head, so no beginning: the record has 0 seconds.
                self._is_recorded, self._began, self._written_before = False, inf, self.stream.written
            self._refuse(wrong)
            return False
        finally:
            # A request that left this without a record was ended by its client.
            self._record(CLIENT_GONE_STATUS)

    def _begin_request(self, head: Head, scope: RequestScope) -> Exchange:
        """Determine the client and the id of a request, and remove the fields that are not trusted."""
        self._head = head
        self._began = began = self._now()
        self._is_recorded, self._written_before = False, self.stream.written
        options, watch = self.options, self._watch
        assert watch is not None
        self.request_id = ""
        if head.is_forwarded:
            self.client = client = options.proxies.client_of(*self._peer, head.fields)
            head.fields = client.fields
            self.request_id = client.request_id
        else:
            self.client = self._direct
        self.request_id = self.request_id or options.ids.new()
        if options.in_flight >= options.most_in_flight:
            raise Refusal(503, "too many requests are handled at once", "in_flight")
        if began - watch.arrived_at > options.oldest:
            raise Refusal(503, "the request has waited for too long", "age")
        scope.begin(options.request_seconds, began)
        exchange = Exchange(self, self.stream, self.client, self.request_id, head, scope)
        if self.server.is_stopping:
            exchange.response.keeps_alive = False
        return exchange

    def _record(self, status: int) -> None:
        """Record the current request, unless it is recorded already."""
        if self._is_recorded:
            return
        self._is_recorded = True
        seconds = max(self._now() - self._began, 0.0)
        sent = self.stream.written - self._written_before
        self.options.sight.ended(self.client.host, self.request_id, self._head, status, seconds, sent)

    def _handle(self, exchange: Exchange) -> Refusal | None:
        """Run the application; return the answer for it if it fails."""
        self._exchange = exchange
        self.stream.enter_flight()
        try:
            self._await_event()
            return self._run_application(exchange)
        finally:
            self.stream.leave_flight()
            self._exchange = None
            if not exchange.scope.head_was_sent:
                exchange.scope.end_deadline()
            if self._timer is not None:
                self._set_timer(None)
            if exchange.is_upgraded:
                exchange.ended.set()

    def _end_request(self, exchange: Exchange, refusal: Refusal | None) -> bool:
        """Record a request, and end its response; return whether the next one may follow."""
        if refusal is not None:
            self._refuse(refusal)
            return False
        response = exchange.response
        self._record(response.status)
        if (
            response.is_sent_or_sending
            and response.keeps_alive
            and (exchange.body is NO_BODY or exchange.body.discard())
        ):
            return True
        if response.phase is not Phase.BROKEN:
            self.stream.linger()
        else:
            self._report_broken(exchange)
        return False

    def _report_broken(self, exchange: Exchange) -> None:
        """Report an application that has sent more or less than its Content-Length."""
        log.error(
            "the body of the response to %s is not as long as its Content-Length; correct the field, or leave it out",
            exchange,
            extra={"request_id": exchange.request_id},
        )
        self.options.sight.refused(500, "")

    def _run_application(self, exchange: Exchange) -> Refusal | None:
        """Call the application in a context of the request; return the answer for it if it fails."""
        try:
            copy_context().run(self.options.application, exchange)
            if exchange.end_upgraded is not None:
                exchange.end_upgraded(1000)
            return None
        except Disconnected:
            if exchange.end_upgraded is None:
                raise
            # A handler may leave to the server that its WebSocket was closed.
            exchange.end_upgraded(1000)
            return None
        except StopIteration as error:
            # By a convention of gunicorn, applications raise it when they have used its socket.
            if exchange.is_upgraded and exchange.end_upgraded is None:
                return None
            return self._fail(exchange, error)
        except (Exception, SystemExit, GeneratorExit) as error:  # noqa: BLE001  # `_fail` reports it; the last two would end the server
            return self._fail(exchange, error)
        except BaseException:
            # A cancellation: the close frame is sent within the cleanup grace.
            if exchange.end_upgraded is not None:
                exchange.end_upgraded(1001)
            raise

    def _fail(self, exchange: Exchange, error: BaseException) -> Refusal | None:
        """Return the answer for an application that raised `error`."""
        # The server's own answer, which a read of the body or a setting of gunicorn has raised.
        refusal = error if isinstance(error, Refusal) else None
        if refusal is None:
            about = {"request_id": exchange.request_id}
            log.error("the application failed in %s", exchange, exc_info=error, extra=about)
        if exchange.end_upgraded is not None:
            exchange.end_upgraded(1011)
        if exchange.response.was_seen:
            if refusal is None:
                self.options.sight.refused(500, "")
            # The status that the client got. 499 would mean that the client has ended it.
            self._record(exchange.response.status)
            # A part of it was sent: only the end of the connection shows that the rest is missing.
            raise Disconnected("a response was broken off")
        return refusal or Refusal(500, "the application failed")

    def _end_cancelled(self, exchange: Exchange) -> Refusal | None:
        """Return the answer for a handler that was cancelled, by its deadline or because the client has gone."""
        reason = exchange.scope._cancel_reason
        log.info("cancelled %s: %s", exchange, reason, extra={"request_id": exchange.request_id})
        if reason == CLIENT_GONE:
            self.options.sight.refused(CLIENT_GONE_STATUS, "client_gone")
            raise Disconnected(CLIENT_GONE)
        if exchange.response.was_seen:
            raise Disconnected("a response was broken off")
        return Refusal(504, "the request took too long")

    # --- closing

    def _refuse(self, refusal: Refusal) -> None:
        log.info("refused a request of %s: %s", self.client.host, refusal, extra={"request_id": self.request_id})
        self.options.sight.refused(refusal.status, refusal.metric)
        try:
            try:
                self.stream.send(error_response(refusal.status, refusal.reason, is_head=self.stream.input.last_is_head))
            finally:
                self._record(refusal.status)
            self.stream.linger()
        except OSError as error:
            log.debug("connection of %s ended: %s", self.address, error)

    def close(self) -> None:
        """Close the connection. Not a checkpoint; a second call does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        self._is_idle = False
        self._set_timer(None)
        if self._watch is not None:
            self._watch.disarm()
        self.stream.sock.close()
        self.server._forget(self)

    # --- the watch and the timer

    def _await_event(self) -> None:
        """Arm the watch, for the time of arrival or for the end of the client."""
        assert self._watch is not None
        if not self._watch.arm() and self._exchange is not None:
            self._examine_client()

    def _become_idle(self) -> bool:
        """Leave the connection to the poller; return False if something has arrived meanwhile."""
        assert self._watch is not None
        if not self._watch.arm_for_data():
            return False
        self._is_idle = True
        # Free the parser: an idle connection may stay for long, and its next request begins with a new thread anyway.
        self._parser = None
        self._set_timer(LINGER_SECONDS if self.server.is_stopping else self.limits.idle_seconds - THREAD_WAITS)
        return True

    def hurry(self) -> None:
        """Handle that the server stops: an idle connection gets a last chance to send a request."""
        if self._is_idle:
            self._set_timer(LINGER_SECONDS)
        elif self._exchange is not None and self._exchange.hurry_upgraded is not None:
            with contextlib.suppress(GroupClosed):
                self.server._group.spawn(self._exchange.hurry_upgraded)

    def watch_again(self) -> None:
        """Watch the client of an upgraded request, if data have ended the watch. Not a checkpoint."""
        if self._watch is not None and self._watch.arrived_at < inf and self._exchange is not None:
            if self._exchange.take_in_upgraded is None:
                self._await_event()
            elif not self._watch.arm_for_data():
                # Data may wait already. The handler reads them, or the timer finds that it does not.
                self._set_timer(self.limits.gone_seconds)

    def watch_for_data(self) -> bool:
        """Report further data of an upgraded request; return False if some may wait already. Not a checkpoint."""
        return self._watch is None or self._exchange is None or self._watch.arm_for_data()

    def examine_client(self) -> None:
        """Check after a moment whether the client has gone. Not a checkpoint."""
        if self._exchange is not None:
            self._examine_client()

    def _on_event(self) -> None:
        """Handle that data, an end or an error have arrived (called inside the scheduler)."""
        if self._is_idle:
            self._is_idle = False
            self._set_timer(None)
            self.server._spawn_soon(self, self.run)
        elif self._exchange is not None and not self._spawn_reader():
            self._examine_client()

    def _spawn_reader(self) -> bool:
        """Start a thread that reads for a handler of another protocol; return False if an end has arrived."""
        exchange = self._exchange
        assert exchange is not None
        if (
            exchange.take_in_upgraded is None
            or exchange.reads_itself
            or _state_of(self.stream.sock) & (GONE | HALF_CLOSED)
        ):
            return False
        self.server._spawn_soon(self, exchange.take_in_upgraded)
        return True

    def _examine_client(self) -> None:
        """Check whether the client of the handled request has gone (called inside the scheduler as well)."""
        assert self._exchange is not None
        if not self.options.cancel_when_gone or self._exchange.reads_itself:
            return
        if _state_of(self.stream.sock) & GONE:
            self._lose_client()
        else:
            # Either an end, which counts after a moment, or data of the next request. After those the poller may not
            # report again, so check again.
            self._set_timer(self.limits.gone_seconds)

    def _expire(self) -> None:
        """Handle the end of the timer (called by the scheduler)."""
        self._timer = None
        if self._is_idle:
            if _state_of(self.stream.sock) & select.POLLIN:
                # A request has just arrived, which a close would answer with a reset. Or the client has closed.
                self._on_event()
            else:
                self.close()
        elif self._exchange is not None and not self._exchange.reads_itself:
            ends = GONE if self.options.half_close else GONE | HALF_CLOSED
            if _state_of(self.stream.sock) & ends:
                self._lose_client()
            elif not self._spawn_reader():
                self._await_event()

    def _lose_client(self) -> None:
        assert self._exchange is not None
        self._exchange.scope.cancel(CLIENT_GONE)

    def _set_timer(self, seconds: float | None) -> None:
        if self._timer is None and seconds is None:
            return
        scheduler = self.server._scheduler
        if self._timer is not None:
            scheduler.timers.cancel(self._timer)
            self._timer = None
        if seconds is not None and seconds < inf:
            self._timer = scheduler.timers.add(scheduler.clock.now() + seconds, self)


def _state_of(sock: socket.socket) -> int:
    """Return the events of poll(2) for `sock` now."""
    query = poll()
    query.register(sock.fileno(), select.POLLIN | HALF_CLOSED)
    return next((events for _, events in query.poll(0)), 0)
