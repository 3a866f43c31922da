"""Replacements for the methods of `ssl.SSLSocket`: OpenSSL reports which direction it needs, and the thread parks.

Each calls the original on a socket that CPython sees as non-blocking (see "managed sockets" in `socket`). On a plain OS
thread it only calls the original, unless a virtual thread has used the socket before.
"""

from __future__ import annotations

import errno
import ssl
from collections.abc import Callable
from typing import Any

from ..._core.current import on_carrier, running
from ..._core.engine import READ, WRITE, compiled, supply
from ..._core.exceptions import is_a
from ..._core.repeated import repeated_in
from ...errors import Cancelled
from .attempts import attempts_on
from .managed import manage, managed, timeout_of
from .socket import close_local

__all__ = ["METHODS", "create"]

TLS = ssl.SSLSocket

original_create = TLS._create.__func__  # type: ignore[attr-defined]  # a classmethod
original_read, original_write = TLS.read, TLS.write
original_send, original_sendall = TLS.send, TLS.sendall
original_do_handshake, original_unwrap = TLS.do_handshake, TLS.unwrap

# Most bytes of a record. `sendall` writes one at a time, because OpenSSL reports only complete writes.
RECORD = 16_384
# Key in the instance's dict, set while OpenSSL has a write that is not complete. True after a cancellation: the stream
# is broken. After a timeout the program may repeat the call: the number of bytes of its data that are complete.
UNFINISHED = "_vthreads_unfinished"


@repeated_in("_calls/net/compiled/ssl.pxi")
def _repeat(sock: ssl.SSLSocket, what: str, call: Callable[..., Any], *args: Any) -> Any:
    """Repeat `call(sock, *args)` until OpenSSL needs neither to read nor to write first."""
    _refuse_if_broken(sock)
    if sock._sslobj is None:  # type: ignore[attr-defined]  # private; the standard methods check it
        # TLS has not started or was unwrapped: the original uses the methods of a plain socket or raises its own error.
        return call(sock, *args)
    if (on_carrier() or id(sock) in managed) and timeout_of(sock) is None:
        manage(sock, None)
    attempts = attempts_on(sock)
    if attempts is None:
        return call(sock, *args)
    tls = sock._sslobj  # type: ignore[attr-defined]  # see above
    while True:
        try:
            return _with_tls(sock, tls, call, *args)
        except ssl.SSLWantReadError:
            direction = READ
            # OpenSSL reads until the kernel has no more.
            attempts.found_nothing()
        except ssl.SSLWantWriteError:
            direction = WRITE
        try:
            ended = not attempts.wait(direction, f"The {what} operation timed out")
        except BrokenPipeError:
            ended = True
        if ended:
            tls = AT_END


class _AtEnd:
    """Takes the place of the TLS object of a socket that was shut down and closed: every call finds the end of data."""

    def _fail(self, *_: Any) -> Any:
        raise ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "EOF occurred in violation of protocol")

    read = write = do_handshake = shutdown = _fail


AT_END = _AtEnd()

supply(
    __name__,
    socket_class=TLS,
    wants_read=ssl.SSLWantReadError,
    wants_write=ssl.SSLWantWriteError,
    error=ssl.SSLError,
    ragged_end=ssl.SSL_ERROR_EOF,
    unfinished=UNFINISHED,
    record=RECORD,
    at_end=AT_END,
)


@repeated_in("_calls/net/compiled/ssl.pxi")
def _with_tls(sock: ssl.SSLSocket, tls: Any, call: Callable[..., Any], *args: Any) -> Any:
    """Call the original with the TLS object that its first attempt had.

    `shutdown`, `unwrap` and `close` remove that object from the socket. An OS thread that waits inside OpenSSL still
    uses it, so a virtual thread that waits here does too.
    """
    if sock._sslobj is not None:  # type: ignore[attr-defined]  # see above
        return call(sock, *args)
    sock._sslobj = tls  # type: ignore[attr-defined]  # see above
    try:
        return call(sock, *args)
    finally:
        sock._sslobj = None  # type: ignore[attr-defined]  # see above


@repeated_in("_calls/net/compiled/ssl.pxi")
def _refuse_if_broken(sock: ssl.SSLSocket) -> None:
    if sock.__dict__.get(UNFINISHED) is True:
        raise BrokenPipeError(
            errno.EPIPE, "a write on this TLS connection was cancelled half-way, so its stream is broken; close it"
        )


@compiled
def read(self: ssl.SSLSocket, len: int = 1024, buffer: Any = None) -> Any:
    return _repeat(self, "read", original_read, len, buffer)


@compiled
def write(self: ssl.SSLSocket, data: Any) -> int:
    return _write(self, original_write, data)


@compiled
def send(self: ssl.SSLSocket, data: Any, flags: int = 0) -> int:
    return _write(self, original_send, data, flags)


@repeated_in("_calls/net/compiled/ssl.pxi")
def _write(sock: ssl.SSLSocket, call: Callable[..., Any], data: Any, *args: Any) -> Any:
    tries = 0
    unfinished, complete = sock.__dict__.get(UNFINISHED), 0
    if unfinished and unfinished is not True and sock._sslobj is not None:  # type: ignore[attr-defined]  # see above
        complete = unfinished
        data = memoryview(data).cast("B")[complete:]

    def counted(*given: Any) -> int:
        nonlocal tries
        tries += 1
        return call(*given)

    try:
        written = _repeat(sock, "write", counted, data, *args)
        if unfinished is not None:
            sock.__dict__.pop(UNFINISHED, None)
        return written + complete if complete else written
    except OSError:
        if tries and sock._sslobj is not None:  # type: ignore[attr-defined]  # see above
            sock.__dict__.setdefault(UNFINISHED, 0)
        raise
    except (TypeError, ValueError):
        # Data that are not bytes: raised as by the original.
        raise
    except BaseException:
        if tries:
            # OpenSSL was called at least once, so it may have built a record and sent a part of it. It would now accept
            # only the same data again. A cancelled caller does not send them again, and other data would corrupt the
            # stream. So mark the connection as broken: later calls raise BrokenPipeError.
            sock.__dict__[UNFINISHED] = True
        raise


class _Records:
    """A write of data record by record; a repeated call continues where the last one stopped."""

    __slots__ = ("sent",)

    def __init__(self) -> None:
        self.sent = 0

    def write(self, sock: ssl.SSLSocket, data: memoryview) -> None:
        while self.sent < len(data):
            self.sent += original_write(sock, data[self.sent : self.sent + RECORD])


@compiled
def sendall(self: ssl.SSLSocket, data: Any, flags: int = 0) -> None:
    if running() is None or self._sslobj is None:  # type: ignore[attr-defined]  # see above
        return original_sendall(self, data, flags)
    records = _Records()
    in_parts = not flags and not _passes_all(self)
    with memoryview(data) as view, view.cast("B") as left:
        try:
            if in_parts:
                _write(self, records.write, left)
            while records.sent < len(left):
                records.sent += self.send(left[records.sent :], flags)
            return None
        except OSError:
            if records.sent and in_parts:
                self.__dict__[UNFINISHED] = records.sent
            raise
        except BaseException as error:
            # The peer has a part of `data`, and the caller does not know which: other data may not follow.
            if is_a(error, Cancelled):
                error.bytes_sent = records.sent
            if records.sent:
                self.__dict__[UNFINISHED] = True
            raise


@repeated_in("_calls/net/compiled/ssl.pxi")
def _passes_all(sock: ssl.SSLSocket) -> bool:
    """Return whether `sendall` has to pass all its data to `send` at once, as the original does."""
    # A program may have replaced `send`. On a non-blocking socket and after a timeout a program passes all data again.
    replaced = getattr(sock.send, "__func__", None) is not send
    return replaced or timeout_of(sock) == 0 or UNFINISHED in sock.__dict__


def do_handshake(self: ssl.SSLSocket, block: bool = False) -> None:
    if block and self.gettimeout() == 0:
        # A handshake with `block=True` waits even on a non-blocking socket; the original does the same.
        self.settimeout(None)
        try:
            _repeat(self, "handshake", original_do_handshake)
        finally:
            self.settimeout(0.0)
    else:
        _repeat(self, "handshake", original_do_handshake)


def unwrap(self: ssl.SSLSocket) -> Any:
    return _repeat(self, "unwrap", original_unwrap)


def create(cls: type[ssl.SSLSocket], *args: Any, **kwargs: Any) -> ssl.SSLSocket:
    """`SSLSocket._create`. The original closes its socket after an `OSError`; this one also after a cancellation."""
    try:
        return original_create(cls, *args, **kwargs)
    except (OSError, ValueError):
        raise
    except BaseException as error:
        # Most often `Cancelled` in the handshake. Only the frame in the traceback still refers to the socket.
        close_local(error, original_create, "self")
        raise


# The methods that patching sets on `ssl.SSLSocket`, by name.
METHODS: dict[str, Any] = {
    "_create": classmethod(create),
    "do_handshake": do_handshake,
    "read": read,
    "send": send,
    "sendall": sendall,
    "unwrap": unwrap,
    "write": write,
}
