"""What the methods of `socket.socket` become: they park the virtual thread instead of blocking its carrier.

Each does what the original does, by the original: called in a way that does not block, again after each wait. On a
plain OS thread the original itself is called, except on sockets with a timeout that a virtual thread has used before.

Timeouts: CPython waits inside the C call when a socket has a timeout. A socket with one that is used by a virtual
thread becomes *managed*: CPython sees it as non-blocking, and its timeout is kept here. CPython had set O_NONBLOCK on
such a socket already, so nobody who shares the open file sees a difference; blocking sockets stay blocking.
"""

from __future__ import annotations

import errno
import os
import socket
import time
import weakref
from collections.abc import Callable
from math import inf
from typing import Any

from .._core.current import running
from .._core.engine import READ, WRITE, quick_socket_calls
from .._core.originals import sleep
from .._core.thread import VirtualThread
from ..errors import Cancelled
from .dns import getaddrinfo
from .readiness import at_once, forget_fd, nonblocking, park_for_owned, wait_blocking

__all__ = ["METHODS", "close_local", "create_connection", "manage", "release_all", "timeout_of"]

Socket = socket.socket
DONTWAIT = getattr(socket, "MSG_DONTWAIT", 0)
WAITALL = getattr(socket, "MSG_WAITALL", 0)
ERRQUEUE = getattr(socket, "MSG_ERRQUEUE", 0)
AF_UNIX = getattr(socket, "AF_UNIX", None)
# Whose sockets have a queue of errors. The others do not know MSG_ERRQUEUE, and wait for data.
WITH_ERRORS = {getattr(socket, name, None) for name in ("AF_INET", "AF_INET6", "AF_PACKET", "AF_CAN")}
# Seconds between tries where readiness tells nothing.
SHORTEST_PAUSE, LONGEST_PAUSE = 0.001, 0.05

# The originals, whatever is patched later. `_accept` and `close` of the C class sit below the Python class.
C: Any = socket.socket.__mro__[1]
family_of = C.family.__get__
original_real_close = Socket._real_close  # type: ignore[attr-defined]  # not in the type stubs
original_detach = Socket.detach
original_create_connection = socket.create_connection


# --- managed sockets


class _Managed:
    """The timeout that the user sees; None is "blocking"."""

    __slots__ = ("reference", "timeout")

    def __init__(self, sock: Socket, timeout: float | None) -> None:
        self.timeout = timeout
        key = id(sock)
        self.reference = weakref.ref(sock, lambda _: managed.pop(key, None))


# By id: sockets have no place for an attribute, and a dict is looked up in tens of nanoseconds.
managed: dict[int, _Managed] = {}


def manage(sock: Socket, timeout: float | None) -> _Managed:
    """From now on CPython sees `sock` as non-blocking and `timeout` (seconds, None for none) is kept here."""
    entry = managed.get(id(sock))
    if entry is None:
        C.settimeout(sock, 0)
        entry = managed[id(sock)] = _Managed(sock, timeout)
    entry.timeout = timeout
    return entry


def timeout_of(sock: Socket) -> float | None:
    """The timeout of `sock` as its user set it; a socket with one becomes managed."""
    entry = managed.get(id(sock))
    if entry is not None:
        return entry.timeout
    timeout = C.gettimeout(sock)
    if timeout:
        manage(sock, timeout)
    return timeout


def release_all() -> None:
    """Give every managed socket its timeout back, for `unpatch`."""
    for entry in list(managed.values()):
        sock = entry.reference()
        if sock is not None and sock.fileno() >= 0:
            C.settimeout(sock, entry.timeout)
    managed.clear()


def settimeout(self: Socket, value: float | None, /) -> None:
    # The original comes first: it judges the value, and it sets O_NONBLOCK as the value asks.
    C.settimeout(self, value)
    timeout = C.gettimeout(self)
    was_managed = managed.pop(id(self), None) is not None
    # OpenSSL has no MSG_DONTWAIT: a TLS socket is managed when it is blocking, too.
    waits_here = timeout or timeout is None and getattr(self, "_sslobj", None) is not None
    if waits_here and (was_managed or running() is not None):
        # As the original has read it: a float, whatever number it was given.
        manage(self, timeout)


def setblocking(self: Socket, flag: bool, /) -> None:
    settimeout(self, None if flag else 0.0)


def gettimeout(self: Socket, /) -> float | None:
    entry = managed.get(id(self))
    return C.gettimeout(self) if entry is None else entry.timeout


def getblocking(self: Socket, /) -> bool:
    return gettimeout(self) != 0


# --- the loop under every call


class _Attempts:
    """The tries of one call on one socket: how long they may go on, and what waits between them."""

    __slots__ = ("_deadline", "_pause", "_sock", "thread")

    def __init__(self, sock: Socket, thread: VirtualThread | None, timeout: float | None) -> None:
        self._sock = sock
        self.thread = thread
        self._pause = SHORTEST_PAUSE
        self._deadline = inf if timeout is None else self._now() + timeout

    def _now(self) -> float:
        return time.monotonic() if self.thread is None else self.thread.scheduler.clock.now()

    def wait(self, direction: int, what: str = "timed out") -> None:
        """After a try that would block: wait until the socket is ready. A checkpoint."""
        timeout = None if self._deadline == inf else self._deadline - self._now()
        if timeout is not None and timeout <= 0:
            raise TimeoutError(what)
        sock, thread = self._sock, self.thread
        if thread is None:
            ready = wait_blocking(sock.fileno(), direction, timeout)
        else:
            ready = park_for_owned(thread, sock.fileno(), direction, weakref.ref(sock), timeout)
        if not ready:
            raise TimeoutError(what)
        if thread is not None:
            thread.check()

    def pause(self) -> None:
        """Wait where readiness does not tell when to try again: a while, longer each time. A checkpoint."""
        seconds = min(self._pause, self._deadline - self._now())
        if seconds <= 0:
            raise TimeoutError("timed out")
        self._pause = min(self._pause * 2, LONGEST_PAUSE)
        if self.thread is None:
            sleep(seconds)
        else:
            self.thread.park(None, seconds)
            self.thread.check()


def attempts_on(sock: Socket, flags: Any = 0) -> _Attempts | None:
    """What a call on `sock` needs to wait; None if the original does all that is right here. A checkpoint."""
    thread = running()
    if thread is None and id(sock) not in managed:
        return None
    timeout = timeout_of(sock)
    if timeout == 0 or sock.fileno() < 0:
        return None
    if flags and timeout is None and isinstance(flags, int) and flags & DONTWAIT:
        # The caller does not want to wait. (With a timeout, the original waits all the same.)
        return None
    if thread is not None:
        thread.check()
    return _Attempts(sock, thread, timeout)


# --- receiving


def _as_understood(sock: Socket, flags: Any) -> Any:
    """`flags` with what they mean to the kernel: nobody waits for an error, nor for urgent data of a stream."""
    if not flags or not isinstance(flags, int):
        return flags
    if flags & ERRQUEUE and family_of(sock) in WITH_ERRORS:
        return flags | DONTWAIT
    if flags & socket.MSG_OOB and sock.type == socket.SOCK_STREAM:
        return flags | DONTWAIT
    return flags


def _receive(sock: Socket, call: Callable[..., Any], wanted: int, args: tuple[Any, ...], flags: int) -> Any:
    """A read that answers bytes or a count, with the readiness that the last one left behind."""
    attempts = attempts_on(sock, flags)
    if attempts is None:
        return call(sock, *args, flags)
    thread = attempts.thread
    entry = None if thread is None or flags else thread.scheduler.descriptors.find(sock.fileno(), sock)
    while True:
        if entry is None or entry.readable or not wanted:
            try:
                answer = call(sock, *args, flags | DONTWAIT)
            except BlockingIOError:
                if entry is not None:
                    entry.drained()
            else:
                count = answer if isinstance(answer, int) else len(answer)
                # A short read of a stream took all there was: the next call parks without trying.
                if entry is not None and 0 < count < wanted and sock.type == socket.SOCK_STREAM:
                    entry.drained()
                return answer
        attempts.wait(READ)


def recv(self: Socket, bufsize: int, flags: int = 0, /) -> bytes:
    flags = _as_understood(self, flags)
    if flags and bufsize > 0 and _wants_all(self, flags):
        buffer = bytearray(bufsize)
        return bytes(buffer[: _receive_all(self, buffer, flags)])
    return _receive(self, C.recv, bufsize, (bufsize,), flags)


def recv_into(self: Socket, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
    flags = _as_understood(self, flags)
    if flags and nbytes >= 0 and _wants_all(self, flags):
        with memoryview(buffer) as view, view.cast("B") as whole:
            return _receive_all(self, whole[: nbytes or len(whole)], flags)
    wanted = nbytes or memoryview(buffer).nbytes
    return _receive(self, C.recv_into, wanted, (buffer, nbytes), flags)


def _wants_all(sock: Socket, flags: int) -> bool:
    """Whether the kernel would wait for all that is asked for: of a stream in blocking mode, if it is told to."""
    return bool(
        flags & WAITALL
        and not flags & (DONTWAIT | socket.MSG_PEEK)
        and running() is not None
        and sock.type == socket.SOCK_STREAM
        and gettimeout(sock) is None
    )


def _receive_all(sock: Socket, buffer: bytearray | memoryview, flags: int) -> int:
    """Fill `buffer`. What ends that early after a part comes at the next checkpoint, as after a signal."""
    received = 0
    with memoryview(buffer) as view:
        while received < len(view):
            try:
                count = _receive(sock, C.recv_into, 0, (view[received:], 0), flags)
            except (Cancelled, OSError):
                if not received:
                    raise
                break
            if not count:
                break
            received += count
    return received


def recvfrom(self: Socket, bufsize: int, flags: int = 0, /) -> Any:
    return _with_flags(self, READ, C.recvfrom, (bufsize,), _as_understood(self, flags))


def recvfrom_into(self: Socket, buffer: Any, nbytes: int = 0, flags: int = 0) -> Any:
    return _with_flags(self, READ, C.recvfrom_into, (buffer, nbytes), _as_understood(self, flags))


def recvmsg(self: Socket, bufsize: int, ancbufsize: int = 0, flags: int = 0, /) -> Any:
    return _with_flags(self, READ, C.recvmsg, (bufsize, ancbufsize), _as_understood(self, flags))


def recvmsg_into(self: Socket, buffers: Any, ancbufsize: int = 0, flags: int = 0, /) -> Any:
    return _with_flags(self, READ, C.recvmsg_into, (list(buffers), ancbufsize), _as_understood(self, flags))


def _with_flags(
    sock: Socket, direction: int, call: Callable[..., Any], args: tuple[Any, ...], flags: int, *after: Any
) -> Any:
    attempts = attempts_on(sock, flags)
    if attempts is None:
        return call(sock, *args, flags, *after)
    # Of a datagram to a Unix socket the receiver's queue decides, which the sender's readiness does not know.
    by_pauses = direction == WRITE and sock.family == AF_UNIX and sock.type == socket.SOCK_DGRAM
    while True:
        try:
            return call(sock, *args, flags | DONTWAIT, *after)
        except BlockingIOError:
            pass
        if by_pauses:
            attempts.pause()
        else:
            attempts.wait(direction)


# --- sending


def send(self: Socket, data: Any, flags: int = 0, /) -> int:
    return _with_flags(self, WRITE, C.send, (data,), flags)


def sendto(self: Socket, data: Any, *flags_and_address: Any) -> int:
    if not 1 <= len(flags_and_address) <= 2:
        return C.sendto(self, data, *flags_and_address)
    flags = flags_and_address[0] if len(flags_and_address) == 2 else 0
    address = resolved(self, flags_and_address[-1])
    return _with_flags(self, WRITE, C.sendto, (data,), flags, address)


def sendmsg(self: Socket, buffers: Any, ancdata: Any = (), flags: int = 0, address: Any = None, /) -> int:
    after = () if address is None else (resolved(self, address),)
    args = (list(buffers), ancdata)
    return _with_flags(self, WRITE, C.sendmsg, args, flags, *after)


def sendall(self: Socket, data: Any, flags: int = 0, /) -> None:
    attempts = attempts_on(self, flags)
    if attempts is None:
        return C.sendall(self, data, flags)
    sent = 0
    with memoryview(data) as view, view.cast("B") as left:
        while True:
            try:
                sent += C.send(self, left[sent:], flags | DONTWAIT)
                if sent >= len(left):
                    return None
                continue
            except BlockingIOError:
                pass
            try:
                attempts.wait(WRITE)
            except Cancelled as cancelled:
                cancelled.bytes_sent = sent
                raise


# --- connecting and accepting


def resolved(sock: Socket, address: Any) -> Any:
    """`address` with its host name looked up, which the C call would do while blocking the carrier."""
    # Asked of the C class: the Python one makes a member of an enumeration of it each time.
    family = family_of(sock)
    if running() is None or family not in (socket.AF_INET, socket.AF_INET6):
        return address
    if not isinstance(address, tuple) or len(address) < 2 or not isinstance(address[0], str) or not address[0]:
        return address
    host, port = address[0], address[1]
    if not isinstance(port, int) or not 0 <= port <= 0xFFFF or "\0" in host:
        # The original says what is wrong with it.
        return address
    if host == "<broadcast>" or _is_numeric(family, host):
        return address
    found = getaddrinfo(host, port, family, sock.type, sock.proto)
    return (*found[0][4][:2], *address[2:]) if found else address


def _is_numeric(family: int, host: str) -> bool:
    try:
        socket.inet_pton(family, host)
    except (OSError, ValueError):
        return False
    return True


def _connect(sock: Socket, address: Any) -> int:
    """Connect; the error number, 0 for success. A checkpoint."""
    attempts = attempts_on(sock)
    if attempts is None:
        return C.connect_ex(sock, address)
    address = resolved(sock, address)
    while True:
        # Nobody else reads or writes a socket that is not connected yet, so this is done to inherited ones, too.
        with nonblocking(sock.fileno()):
            error = C.connect_ex(sock, address)
        if error == errno.EAGAIN and sock.family == AF_UNIX:
            # The listener's queue is full, and no readiness tells when it has room.
            attempts.pause()
            continue
        if error not in (errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EALREADY):
            return error
        # On the same machine the connection is there by now, as a rule.
        if not _has_peer(sock):
            attempts.wait(WRITE)
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error or _has_peer(sock):
            return error


def _has_peer(sock: Socket) -> bool:
    # A fresh socket reports itself writable once before it is connecting; only a peer proves the connection.
    try:
        sock.getpeername()
    except OSError as error:
        return error.errno != errno.ENOTCONN
    return True


def connect(self: Socket, address: Any, /) -> None:
    if running() is None and id(self) not in managed or timeout_of(self) == 0:
        return C.connect(self, address)
    error = _connect(self, address)
    if error:
        raise OSError(error, os.strerror(error))
    return None


def connect_ex(self: Socket, address: Any, /) -> int:
    try:
        return _connect(self, address)
    except TimeoutError:
        # As the original answers when the socket's timeout comes first.
        return errno.EWOULDBLOCK


def bind(self: Socket, address: Any, /) -> None:
    C.bind(self, resolved(self, address))


def _accept(self: Socket, /) -> tuple[int, Any]:
    attempts = attempts_on(self)
    accept = C._accept
    if attempts is None:
        return accept(self)
    while True:
        # Even after readiness the connection may be gone, taken by another process that listens with us.
        try:
            with at_once(self.fileno(), READ):
                return accept(self)
        except BlockingIOError:
            pass
        attempts.wait(READ)


# --- closing


def _real_close(self: Socket, *args: Any) -> None:
    fd = self.fileno()
    if fd >= 0:
        forget_fd(fd)
    managed.pop(id(self), None)
    original_real_close(self, *args)


def detach(self: Socket, /) -> int:
    fd = self.fileno()
    if fd >= 0:
        forget_fd(fd)
    entry = managed.pop(id(self), None)
    if entry is not None:
        # Whoever takes the number over finds the descriptor as CPython would have left it.
        C.settimeout(self, entry.timeout)
    return original_detach(self)


def create_connection(*args: Any, **kwargs: Any) -> Socket:
    """`socket.create_connection`, which closes its socket after an `OSError`, and must after a cancellation."""
    try:
        return original_create_connection(*args, **kwargs)
    except OSError:
        raise
    except BaseException as error:
        close_local(error, original_create_connection, "sock")
        raise


def close_local(error: BaseException, function: Any, variable: str) -> None:
    """Close the socket in a local variable of `function`, through which `error` has passed."""
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code is function.__code__:
            sock = traceback.tb_frame.f_locals.get(variable)
            if isinstance(sock, Socket):
                sock.close()
        traceback = traceback.tb_next


# What `socket.socket` gets, by name.
METHODS: dict[str, Any] = {
    "_accept": _accept,
    "_real_close": _real_close,
    "bind": bind,
    "connect": connect,
    "connect_ex": connect_ex,
    "detach": detach,
    "getblocking": getblocking,
    "gettimeout": gettimeout,
    "recv": recv,
    "recv_into": recv_into,
    "recvfrom": recvfrom,
    "recvfrom_into": recvfrom_into,
    "recvmsg": recvmsg,
    "recvmsg_into": recvmsg_into,
    "send": send,
    "sendall": sendall,
    "sendmsg": sendmsg,
    "sendto": sendto,
    "setblocking": setblocking,
    "settimeout": settimeout,
    "timeout": property(gettimeout, doc="the socket timeout"),
}
METHODS |= quick_socket_calls(METHODS.copy(), managed)
