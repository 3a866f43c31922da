"""Sockets without the operating system: two wires in memory, behind the methods of `socket.socket`.

They are instances of `socket.socket`, so that `isinstance`, `makefile`, `with` and `socketserver`'s handlers take them,
but have no descriptor: `fileno()` is -1, as of a closed socket. So what works on descriptors does not work on them:
`select`, `selectors`, TLS, `os.read`, other processes.

The rules of checkpoints are those of real sockets on a virtual thread. On a plain OS thread they block it.
"""

from __future__ import annotations

import errno
import os
import socket
import warnings
from collections.abc import Iterable
from math import inf
from typing import Any, NoReturn

from .._core.current import checkpoint
from .._core.runtime import now
from ..errors import Cancelled
from .wire import Wire

__all__ = ["MemorySocket", "SocketInMemory"]

Address = tuple[str, int]

DONTWAIT, NOSIGNAL = getattr(socket, "MSG_DONTWAIT", 0), getattr(socket, "MSG_NOSIGNAL", 0)
FLAGS = DONTWAIT | NOSIGNAL | socket.MSG_PEEK | socket.MSG_WAITALL


def failure(number: int) -> OSError:
    """The error by its number, as the operating system would raise it."""
    return OSError(number, os.strerror(number))


class SocketInMemory(socket.socket):
    """What sockets that are connected and sockets that listen have in common: an address, a timeout, options."""

    family = socket.AF_INET
    type = socket.SOCK_STREAM
    proto = 0

    def __init__(self, address: Address) -> None:
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
        """Its own address. Not a checkpoint."""
        return self._address

    def fileno(self) -> int:
        """Tell -1: there is no descriptor. Not a checkpoint."""
        return -1

    def settimeout(self, value: float | None, /) -> None:
        """As of `socket.socket`: seconds, None to wait, 0 not to wait. Not a checkpoint."""
        if value is not None and not value >= 0:
            raise ValueError("Timeout value out of range")
        self._timeout = None if value is None else float(value)

    def gettimeout(self) -> float | None:
        """What `settimeout` set, in seconds. Not a checkpoint."""
        return self._timeout

    timeout = property(gettimeout)

    def setblocking(self, flag: bool, /) -> None:
        """As of `socket.socket`. Not a checkpoint."""
        self.settimeout(None if flag else 0.0)

    def getblocking(self) -> bool:
        """As of `socket.socket`. Not a checkpoint."""
        return self._timeout != 0

    def setsockopt(self, level: int, option: int, value: Any, *length: int) -> None:
        """Remember an option, which has no effect. Not a checkpoint."""
        self._options[level, option] = value

    def getsockopt(self, level: int, option: int, *length: int) -> Any:
        """Tell what was set, else 0. Not a checkpoint."""
        return self._options.get((level, option), 0)

    def set_inheritable(self, inheritable: bool) -> None:
        """Do nothing: there is nothing to inherit. Not a checkpoint."""

    def get_inheritable(self) -> bool:
        """Tell that no other process inherits it. Not a checkpoint."""
        return False

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        self._check_open()
        raise OSError(errno.EOPNOTSUPP, f"{self!r} is in memory: there is no descriptor to do this with")

    detach = dup = share = ioctl = bind = listen = connect = connect_ex = _refuse

    def _real_close(self, *_: Any) -> None:
        raise NotImplementedError(f"{type(self).__name__} says what its end is")

    def _check_open(self) -> None:
        if self._closed and self._io_refs <= 0:
            raise failure(errno.EBADF)

    def _may_wait(self, flags: int = 0) -> bool:
        """The beginning of every call: whether it may wait, and then it is a checkpoint."""
        self._check_open()
        if flags & ~FLAGS:
            raise OSError(errno.EOPNOTSUPP, f"{self!r} is in memory and knows no such flags: {flags:#x}")
        waits = self._timeout != 0 and not flags & DONTWAIT
        if waits:
            checkpoint()
        return waits

    def _deadline(self) -> float:
        return inf if self._timeout is None else now() + self._timeout


class MemorySocket(SocketInMemory):
    """One end of a connection in memory. Made by `memory_socketpair` and `Network`, not by hand."""

    def __init__(self, incoming: Wire, outgoing: Wire, address: Address, peer: Address) -> None:
        super().__init__(address)
        self._incoming, self._outgoing = incoming, outgoing
        self._peer = peer

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]} to {self._peer}>"

    def getpeername(self) -> Address:
        """Tell the address of the other end. Not a checkpoint."""
        self._check_open()
        return self._peer

    # --- receiving

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """As of `socket.socket`: what has arrived, up to `bufsize` bytes. A checkpoint unless non-blocking."""
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
        """Receive until there are `size` bytes; what ends that early comes at the next call."""
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
        """As of `socket.socket`. A checkpoint unless non-blocking."""
        with memoryview(buffer) as view, view.cast("B") as room:
            received = self.recv(nbytes or len(room), flags)
            room[: len(received)] = received
        return len(received)

    def recvfrom(self, bufsize: int, flags: int = 0, /) -> tuple[bytes, Any]:
        """As of a connected `socket.socket`, with no address. A checkpoint unless non-blocking."""
        return self.recv(bufsize, flags), None

    def recvfrom_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> tuple[int, Any]:
        """As of a connected `socket.socket`, with no address. A checkpoint unless non-blocking."""
        return self.recv_into(buffer, nbytes, flags), None

    def recvmsg(self, bufsize: int, ancbufsize: int = 0, flags: int = 0, /) -> tuple[bytes, list[Any], int, Any]:
        """As of `socket.socket`, without ancillary data. A checkpoint unless non-blocking."""
        return self.recv(bufsize, flags), [], 0, None

    # Nobody has needed the one; the other is for those that listen.
    recvmsg_into = accept = SocketInMemory._refuse

    # --- sending

    def send(self, data: Any, flags: int = 0, /) -> int:
        """As of `socket.socket`: send what there is room for. A checkpoint unless non-blocking."""
        waits = self._may_wait(flags)
        with memoryview(data) as view, view.cast("B") as whole:
            if waits:
                return self._outgoing.wait_to_put(whole, self._deadline(), self._check_open)
            sent = self._outgoing.put(whole)
        if sent is None:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return sent

    def sendall(self, data: Any, flags: int = 0, /) -> None:
        """As of `socket.socket`. A checkpoint; cancelled after a part, `Cancelled.bytes_sent` tells how much."""
        if not self._may_wait(flags):
            # As the original does: an error may come after a part.
            with memoryview(data) as view, view.cast("B") as left:
                sent = 0
                while sent < len(left):
                    sent += self.send(left[sent:], flags)
            return
        deadline, sent = self._deadline(), 0
        with memoryview(data) as view, view.cast("B") as left:
            try:
                while sent < len(left):
                    sent += self._outgoing.wait_to_put(left[sent:], deadline, self._check_open)
            except Cancelled as cancelled:
                cancelled.bytes_sent = sent
                raise

    def sendto(self, data: Any, *flags_and_address: Any) -> int:
        """As of a connected `socket.socket`, which refuses an address. A checkpoint unless non-blocking."""
        raise failure(errno.EISCONN)

    def sendmsg(self, buffers: Iterable[Any], ancdata: Any = (), flags: int = 0, address: Any = None, /) -> int:
        """As of `socket.socket`, without ancillary data and address. A checkpoint unless non-blocking."""
        if list(ancdata) or address is not None:
            self._refuse()
        return self.send(b"".join(buffers), flags)

    def sendfile(self, file: Any, offset: int = 0, count: int | None = None) -> int:
        """As of `socket.socket`, by reading and sending. A checkpoint."""
        sent: int = self._sendfile_use_send(file, offset, count)  # type: ignore[attr-defined]  # not in the stubs
        return sent

    # --- ending

    def shutdown(self, how: int, /) -> None:
        """As of `socket.socket`. Not a checkpoint."""
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
