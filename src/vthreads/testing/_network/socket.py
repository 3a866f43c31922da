"""Sockets without the operating system: two wires in memory, behind the methods of `socket.socket`.

They are instances of `socket.socket`, so `isinstance`, `makefile`, `with` and the handlers of `socketserver` accept
them. But they have no descriptor: `fileno()` is -1, as for a closed socket. So calls that need a descriptor do not work
on them: `select`, `selectors`, TLS, `os.read`, other processes.

They follow the checkpoint rules of real sockets on a virtual thread. On a plain OS thread they block it.
"""

from __future__ import annotations

import errno
import os
import socket
import warnings
from collections.abc import Iterable
from math import inf
from typing import Any, NoReturn, Self

from ..._core.copies import refuse_creation
from ..._core.current import check_here
from ..._core.runtime import now
from ...errors import Cancelled
from .wire import Wire

__all__ = ["MemorySocket", "SocketInMemory"]

Address = tuple[str, int]

DONTWAIT, NOSIGNAL = getattr(socket, "MSG_DONTWAIT", 0), getattr(socket, "MSG_NOSIGNAL", 0)
FLAGS = DONTWAIT | NOSIGNAL | socket.MSG_PEEK | socket.MSG_WAITALL


def failure(number: int) -> OSError:
    """Return the error with this number, as the operating system would raise it."""
    return OSError(number, os.strerror(number))


class SocketInMemory(socket.socket):
    """Common part of connected and listening sockets: address, timeout, options."""

    family = socket.AF_INET
    type = socket.SOCK_STREAM
    proto = 0

    def __init__(self, *_: object, **__: object) -> None:
        # For the finalizer, which runs in any case.
        self._closed = True
        refuse_creation(self, "memory_socketpair(), and listen() and connect() of a Network create sockets in memory")

    def _init_socket(self, address: Address) -> None:
        # Without socket.socket.__init__, which would open a descriptor.
        self._io_refs = 0
        self._closed = False
        self._address = address
        self._timeout = socket.getdefaulttimeout()
        self._options: dict[tuple[int, int], Any] = {(socket.SOL_SOCKET, socket.SO_TYPE): int(self.type)}

    def __repr__(self) -> str:
        return f"<{type(self).__name__}{' [closed]' if self._closed else ''} {self._address}>"

    def __del__(self) -> None:
        if not self._closed:
            self._real_close()
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)

    def getsockname(self) -> Address:
        """Return the socket's own address. Not a checkpoint."""
        return self._address

    def fileno(self) -> int:
        """Return -1, because there is no descriptor. Not a checkpoint."""
        return -1

    def settimeout(self, value: float | None, /) -> None:
        """Like `socket.socket`: seconds; None to wait without limit, 0 not to wait. Not a checkpoint."""
        if value is not None and not value >= 0:
            raise ValueError("Timeout value out of range")
        self._timeout = None if value is None else float(value)

    def gettimeout(self) -> float | None:
        """Return the timeout in seconds, or None. Not a checkpoint."""
        return self._timeout

    @property
    def timeout(self) -> float | None:
        """The timeout in seconds, or None."""
        return self._timeout

    def setblocking(self, flag: bool, /) -> None:
        """Like `socket.socket`. Not a checkpoint."""
        self.settimeout(None if flag else 0.0)

    def getblocking(self) -> bool:
        """Like `socket.socket`. Not a checkpoint."""
        return self._timeout != 0

    def setsockopt(self, level: int, option: int, value: Any, *length: int) -> None:
        """Store an option, which has no effect. Not a checkpoint."""
        self._options[level, option] = value

    def getsockopt(self, level: int, option: int, *length: int) -> Any:
        """Return a stored option, or 0. Not a checkpoint."""
        return self._options.get((level, option), 0)

    def set_inheritable(self, inheritable: bool) -> None:
        """Do nothing: there is no descriptor to inherit. Not a checkpoint."""

    def get_inheritable(self) -> bool:
        """Return False: other processes cannot inherit it. Not a checkpoint."""
        return False

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        self._check_open()
        raise OSError(errno.EOPNOTSUPP, f"{self!r} is in memory: this call needs a descriptor; use a real socket")

    detach: Any = _refuse
    dup: Any = _refuse
    share: Any = _refuse
    ioctl: Any = _refuse
    bind: Any = _refuse
    listen: Any = _refuse
    connect: Any = _refuse
    connect_ex: Any = _refuse

    def _real_close(self, *_: Any) -> None:
        raise NotImplementedError(f"{type(self).__name__} must define _real_close")

    def _check_open(self) -> None:
        if self._closed and self._io_refs <= 0:
            raise failure(errno.EBADF)

    def _may_wait(self, flags: int = 0) -> bool:
        """Begin a call: return whether it may wait, in which case this is a checkpoint."""
        self._check_open()
        if flags & ~FLAGS:
            raise OSError(errno.EOPNOTSUPP, f"{self!r} is in memory and does not support flags={flags:#x}")
        waits = self._timeout != 0 and not flags & DONTWAIT
        if waits:
            check_here()
        return waits

    def _deadline(self) -> float:
        return inf if self._timeout is None else now() + self._timeout


class MemorySocket(SocketInMemory):
    """One end of a connection in memory. Created by `memory_socketpair` and `Network`."""

    def _init_end(self, incoming: Wire, outgoing: Wire, address: Address, peer: Address) -> Self:
        self._init_socket(address)
        self._incoming, self._outgoing = incoming, outgoing
        self._peer = peer
        return self

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]} to {self._peer}>"

    def getpeername(self) -> Address:
        """Return the address of the other end. Not a checkpoint."""
        self._check_open()
        return self._peer

    # --- receiving

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """Like `socket.socket`: up to `bufsize` bytes that have arrived. A checkpoint unless non-blocking."""
        if bufsize < 0:
            raise ValueError("negative buffersize in recv")
        waits = self._may_wait(flags)
        peek = bool(flags & socket.MSG_PEEK)
        if not waits:
            taken = self._incoming.take(bufsize, peek)
            if taken is None:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            return taken
        taken = self._incoming.wait_to_take(bufsize, self._deadline(), self._check_open, peek)
        if flags & socket.MSG_WAITALL and not peek and self._timeout is None:
            taken = self._filled(taken, bufsize)
        return taken

    def _filled(self, taken: bytes, size: int) -> bytes:
        """Receive until there are `size` bytes. An early error or cancellation is raised by the next call."""
        while taken and len(taken) < size:
            try:
                more = self._incoming.wait_to_take(size - len(taken), inf, self._check_open)
            except (Cancelled, OSError):
                break
            if not more:
                break
            taken += more
        return taken

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """Like `socket.socket`. A checkpoint unless non-blocking."""
        with memoryview(buffer) as view, view.cast("B") as room:
            received = self.recv(nbytes or len(room), flags)
            room[: len(received)] = received
        return len(received)

    def recvfrom(self, bufsize: int, flags: int = 0, /) -> tuple[bytes, Any]:
        """Like a connected `socket.socket`, without address. A checkpoint unless non-blocking."""
        return self.recv(bufsize, flags), None

    def recvfrom_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> tuple[int, Any]:
        """Like a connected `socket.socket`, without address. A checkpoint unless non-blocking."""
        return self.recv_into(buffer, nbytes, flags), None

    def recvmsg(self, bufsize: int, ancbufsize: int = 0, flags: int = 0, /) -> tuple[bytes, list[Any], int, Any]:
        """Like `socket.socket`, without ancillary data. A checkpoint unless non-blocking."""
        return self.recv(bufsize, flags), [], 0, None

    # The first is not implemented; the second is for listening sockets only.
    recvmsg_into: Any = SocketInMemory._refuse
    accept: Any = SocketInMemory._refuse

    # --- sending

    def send(self, data: Any, flags: int = 0, /) -> int:
        """Like `socket.socket`: send as much as fits. A checkpoint unless non-blocking."""
        waits = self._may_wait(flags)
        with memoryview(data) as view, view.cast("B") as whole:
            if waits:
                return self._outgoing.wait_to_put(whole, self._deadline(), self._check_open)
            sent = self._outgoing.put(whole)
        if sent is None:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return sent

    def sendall(self, data: Any, flags: int = 0, /) -> None:
        """Like `socket.socket`. A checkpoint; if cancelled, `Cancelled.bytes_sent` is the number of bytes sent."""
        sent = 0
        try:
            waits = self._may_wait(flags)
            deadline = self._deadline()
            with memoryview(data) as view, view.cast("B") as left:
                while sent < len(left):
                    if waits:
                        sent += self._outgoing.wait_to_put(left[sent:], deadline, self._check_open)
                    else:
                        # As in the original, an error may come after a part was sent.
                        sent += self.send(left[sent:], flags)
        except Cancelled as cancelled:
            cancelled.bytes_sent = sent
            raise

    def sendto(self, data: Any, *flags_and_address: Any) -> int:
        """Like a connected `socket.socket`, which refuses an address. A checkpoint unless non-blocking."""
        raise failure(errno.EISCONN)

    def sendmsg(self, buffers: Iterable[Any], ancdata: Any = (), flags: int = 0, address: Any = None, /) -> int:
        """Like `socket.socket`, without ancillary data and address. A checkpoint unless non-blocking."""
        if list(ancdata) or address is not None:
            self._refuse()
        return self.send(b"".join(buffers), flags)

    def sendfile(self, file: Any, offset: int = 0, count: int | None = None) -> int:
        """Like `socket.socket`, by reading and sending. A checkpoint."""
        sent: int = self._sendfile_use_send(file, offset, count)  # type: ignore[attr-defined]  # not in the stubs
        return sent

    # --- ending

    def shutdown(self, how: int, /) -> None:
        """Like `socket.socket`. Not a checkpoint."""
        self._check_open()
        if how not in (socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR):
            raise failure(errno.EINVAL)
        if how != socket.SHUT_WR:
            self._incoming.refuse()
        if how != socket.SHUT_RD:
            self._outgoing.end()

    def _real_close(self, *_: Any) -> None:
        self._incoming.refuse()
        self._outgoing.end()
