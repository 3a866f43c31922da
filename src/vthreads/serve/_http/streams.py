"""The bytes of a connection in both directions, each wait with its limit of time. No syntax.

The socket is "managed", see `_calls.net.managed`: a change of its time limit costs no system call. One call of
`receive` is one recv(2).

A request that waits for its client does not count as in flight. Otherwise slow clients could keep all places, and the
others would be refused while the server has nothing to do.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
from typing import Any, BinaryIO

from ..._calls.net.managed import manage
from ..._timeouts import move_on_after
from .inputs import Input
from .options import HttpOptions
from .refusals import Disconnected

__all__ = ["LINGER_SECONDS", "Stream"]

# Most bytes of one read, so also the most that is read ahead of the request that is handled.
AT_ONCE = 64 << 10
# The limit of a wait that only takes what has arrived.
SHORTEST = 1e-9
# Seconds for a client to read the last response, and for an idle connection to send a request when the server stops.
LINGER_SECONDS = 2.0
# Bytes of a refused request that are read, so that the client gets the response instead of a reset.
LINGER_BYTES = 1 << 20
# Bytes of a file that a client must read within the limit of a write.
FILE_AT_ONCE = 256 << 10
# Errors of a connection, as opposed to those of the file that is sent on it.
OF_CONNECTION = (ConnectionError, TimeoutError, ssl.SSLError)
UNREACHABLE = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN})


class Stream:
    """The stream of `sock`.

    Attributes:
        sock: the socket.
        input: the bytes that were received and are unused.
        written: bytes that were sent.
        is_counted: whether a request is handled that counts as in flight while it does not wait for its client.
    """

    __slots__ = ("_managed", "_options", "input", "is_counted", "is_shared", "sock", "written")

    def __init__(self, sock: socket.socket, options: HttpOptions) -> None:
        self.sock = sock
        self.input = Input()
        self.written = 0
        self.is_counted = False
        self._options = options
        # The entry of the managed socket, which holds its time limit. It is kept as long as the application does not
        # have the socket, and so cannot change its mode.
        self._managed: Any = None
        self.is_shared = False

    # --- requests in flight

    def enter_flight(self) -> None:
        """Count a request as in flight. Not a checkpoint."""
        self.is_counted = True
        self._options.in_flight += 1

    def leave_flight(self) -> None:
        """Stop counting the request: it has ended, or was upgraded. Not a checkpoint."""
        if self.is_counted:
            self.is_counted = False
            self._options.in_flight -= 1

    # --- waits for the client

    def _begin_wait(self) -> bool:
        """Stop counting the request while it waits for its client; return whether it was counted."""
        if self.is_counted:
            self._options.in_flight -= 1
        return self.is_counted

    def _end_wait(self, was_counted: bool) -> None:
        if was_counted:
            self._options.in_flight += 1

    def limit(self, seconds: float | None) -> None:
        """Set the limit of time of the calls that follow; None: no limit. Not a checkpoint."""
        if self._managed is not None:
            self._managed.timeout = seconds
        elif self.is_shared:
            manage(self.sock, seconds)
        else:
            self._managed = manage(self.sock, seconds)

    def share(self) -> None:
        """Leave the socket to another protocol. Not a checkpoint."""
        self.leave_flight()
        self.limit(None)
        self.is_shared = True
        self._managed = None

    def receive(self, seconds: float | None) -> None:
        """Wait for more bytes. A checkpoint.

        Raises:
            TimeoutError: none came within `seconds` (None: no limit).
            Disconnected: the client has ended its side.
        """
        # 0 would mean a call that does not wait, with another error.
        self.limit(seconds or (None if seconds is None else SHORTEST))
        was_counted = self._begin_wait()
        try:
            data = self.sock.recv(AT_ONCE)
        finally:
            self._end_wait(was_counted)
        if not data:
            raise Disconnected("the client has closed the connection")
        self.input.add(data)

    def send(self, data: bytes) -> None:
        """Send `data`. A checkpoint.

        Raises:
            Disconnected: the client has gone, or has read nothing for the time that the limits allow.
        """
        sock = self.sock
        self.limit(self._options.write_timeout)
        was_counted = self._begin_wait()
        try:
            sent = sock.send(data)
            self.written += sent
            if sent == len(data):
                return
            left = memoryview(data)[sent:]
            while left:
                # Another thread may have read meanwhile, with another limit.
                self.limit(self._options.write_timeout)
                sent = sock.send(left)
                self.written += sent
                left = left[sent:]
        except TimeoutError:
            # A close would wait in the kernel for a client that reads nothing. A reset does not.
            self.reset_at_close()
            raise Disconnected("the client has read nothing for too long") from None
        except OSError as error:
            raise Disconnected(str(error)) from error
        finally:
            self._end_wait(was_counted)

    def send_file(self, file: BinaryIO, size: int) -> None:
        """Send `size` bytes of `file`, from its position on. A checkpoint; raises as `send`.

        Raises:
            OSError: the file cannot be read, or has become shorter.
        """
        was_counted = self._begin_wait()
        try:
            self._send_file(file, size)
        finally:
            self._end_wait(was_counted)

    def _send_file(self, file: BinaryIO, size: int) -> None:
        left = size
        while left:
            # sendfile(2) has no time limit for a client that reads nothing. The position of the file shows what was
            # sent, also after an error.
            position = file.tell()
            self.limit(None)
            try:
                with move_on_after(self._options.limits.write_seconds) as limit:
                    self.sock.sendfile(file, position, min(left, FILE_AT_ONCE))
            except OSError as error:
                if isinstance(error, OF_CONNECTION) or error.errno in UNREACHABLE:
                    raise Disconnected(str(error)) from error
                raise
            sent = file.tell() - position
            if limit.cancelled_caught and not sent:
                self.reset_at_close()
                raise Disconnected("the client has read nothing for too long")
            if not sent:
                raise OSError(f"{file!r} has become shorter while it was sent: {left} of {size} bytes are missing")
            self.written += sent
            left -= sent

    # --- the end

    def shut_down(self) -> None:
        """End both sides of the socket, which wakes up its readers and writers. Not a checkpoint."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)

    def reset_at_close(self) -> None:
        """Let the close of the socket reset the connection. Not a checkpoint."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    def linger(self) -> None:
        """End the sending side, and read until the client has closed. A checkpoint.

        A close with unread bytes resets the connection, and a reset removes the response from the buffer of the client
        (RFC 9112, 9.6).
        """
        left = LINGER_BYTES
        self.limit(None)
        with move_on_after(LINGER_SECONDS):
            if isinstance(self.sock, ssl.SSLSocket):
                # Send the end of TLS: without it, a client cannot distinguish a complete response from one that was cut
                # off on its way (RFC 8446, 6.1). Data that arrive instead of the client's end are an error.
                with contextlib.suppress(ssl.SSLError):
                    self.sock.unwrap()
            # `unwrap` has ended TLS in Python as well, so the rest is read as it comes.
            self.sock.shutdown(socket.SHUT_WR)
            while left > 0 and (data := self.sock.recv(64 << 10)):
                left -= len(data)
