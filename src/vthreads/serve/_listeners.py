"""Listening sockets: open them for addresses, and decide what follows from a failed accept.

listener.accept() fails ──ABORTED────> accept again at once: only this one connection is lost
                        ──EXHAUSTED──> accept again after a pause, which grows: the process or system has no room
                        ──other error> the server ends: the listener itself is unusable
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import stat
import struct
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

from ._addresses import Address, FdAddress, TcpAddress, UnixAddress

__all__ = ["ABORTED", "EXHAUSTED", "drop_new_connections", "open_listeners"]

# accept(2) of Linux also reports errors that a connection had before it was accepted. The manual page demands to treat
# them like "try again".
ABORTED = frozenset(
    getattr(errno, name)
    for name in (
        "ECONNABORTED",
        "EHOSTDOWN",
        "EHOSTUNREACH",
        "EINTR",
        "ENETDOWN",
        "ENETUNREACH",
        "ENONET",
        "ENOPROTOOPT",
        "EOPNOTSUPP",
        "EPERM",
        "EPROTO",
    )
    if hasattr(errno, name)
)
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

# Advice about an error at the start, by the kind of the address and the error.
ADVICE = {
    (TcpAddress, errno.EADDRINUSE): "another process listens there; stop it, or choose another port",
    (TcpAddress, errno.EADDRNOTAVAIL): "no interface of this machine has this address; choose one of `ip address`",
    (TcpAddress, errno.EACCES): "ports below 1024 need the capability CAP_NET_BIND_SERVICE; choose a higher port",
    (UnixAddress, errno.EADDRINUSE): "the path exists and is not a socket; remove it, or choose another path",
    (UnixAddress, errno.ENOENT): "its directory does not exist; create it",
    (UnixAddress, errno.EACCES): "this user may not create files in its directory; change the owner of the directory",
    (FdAddress, errno.EBADF): "the process has no such descriptor; the program that starts it must pass the listener",
    (FdAddress, errno.ENOTSOCK): "it is not a socket; the program that starts the process must pass a listener",
}

# Linux: the option for a filter, which Python has no name for, and a filter of classic BPF: load the flags of the TCP
# header, drop the packet if SYN is among them, accept it otherwise.
SO_ATTACH_FILTER = 26
DROP_SYN = struct.pack("HBBI" * 4, 0x30, 0, 0, 13, 0x45, 0, 1, 0x02, 0x06, 0, 0, 0, 0x06, 0, 0, 0xFFFFFFFF)


def drop_new_connections(listener: socket.socket) -> None:
    """Begin no connection at `listener` any more, in any process that shares it; those in the backlog stay.

    Closing a listener resets connections that have arrived since the last accept. With this before, none arrives: the
    client repeats its SYN, and is refused after the close. Does nothing where the system has no such filter.
    """
    if sys.platform != "linux" or listener.family == socket.AF_UNIX:
        return
    program = ctypes.create_string_buffer(DROP_SYN)
    try:
        listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", 4, ctypes.addressof(program)))
    except OSError:
        # Filters are forbidden here. The window between the last accept and the close stays open.
        pass


@contextmanager
def open_listeners(addresses: Iterable[Address], *, backlog: int, reuse_port: bool) -> Iterator[list[socket.socket]]:
    """Open a listening socket for each address, and close them at the end; a name may mean several addresses.

    Raises:
        OSError: an address cannot be used; the message names it. No socket is left open.
    """
    with ExitStack() as stack:
        listeners: list[socket.socket] = []
        for address in addresses:
            try:
                # One by one: a name may mean several addresses, of which only a later one cannot be used.
                listeners.extend(map(stack.enter_context, _open(address, backlog, reuse_port)))
            except OSError as error:
                advice = ADVICE.get((type(address), error.errno or 0))
                error.add_note(f"cannot listen on {address}" + (f": {advice}" if advice else ""))
                raise
            if isinstance(address, UnixAddress):
                stack.callback(_remove_socket_file, address.path, os.stat(address.path).st_ino)
        yield listeners


def _open(address: Address, backlog: int, reuse_port: bool) -> Iterator[socket.socket]:
    match address:
        case FdAddress(fd):
            # A duplicate: the caller keeps its descriptor, which other processes may inherit.
            duplicate = os.dup(fd)
            try:
                listener = socket.socket(fileno=duplicate)
            except OSError:
                os.close(duplicate)
                raise
            yield listener
            if not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                raise OSError(errno.EINVAL, f"descriptor {fd} is a socket that does not listen")
        case UnixAddress(path):
            _remove_socket_file(path, None)
            yield socket.create_server(path, family=socket.AF_UNIX, backlog=backlog)
        case TcpAddress(host, port):
            found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            for family, _, _, _, where in dict.fromkeys(found):
                listener = socket.create_server(
                    where[:2], family=socket.AddressFamily(family), backlog=backlog, reuse_port=reuse_port
                )
                # Accepted sockets inherit it on Linux. A response is sent by one call where possible, so there is
                # nothing to wait for.
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                yield listener


def _remove_socket_file(path: str, inode: int | None) -> None:
    """Remove the socket file at `path`, if it is one, and if it is still the one with `inode` (None: any)."""
    try:
        found = os.stat(path)
        if stat.S_ISSOCK(found.st_mode) and inode in (None, found.st_ino):
            os.unlink(path)
    except FileNotFoundError:
        pass
