# The methods of sockets that park. Uncommon arguments and kinds of sockets are passed to the Python versions.

import os
import _socket
from errno import EAGAIN, ECONNRESET, EINVAL

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize

from vthreads.errors import Cancelled

cdef extern from "Python.h":
    int PySys_Audit(const char *event, const char *format, ...) except -1

cdef extern from "_calls/net/compiled/socket.h":
    bint VT_HAS_SOCKETS
    ctypedef struct vt_address:
        pass
    object vt_member(object descriptor, object sock)
    Py_ssize_t vt_recv(int fd, char *buffer, Py_ssize_t room)
    Py_ssize_t vt_send(int fd, const char *data, Py_ssize_t size)
    Py_ssize_t vt_recvfrom(int fd, char *buffer, Py_ssize_t room, vt_address *sender)
    Py_ssize_t vt_sendto(int fd, const char *data, Py_ssize_t size, vt_address *receiver)
    int vt_accept(int fd, vt_address *peer, int *kept)
    int vt_connect(int fd, vt_address *to, int *was_blocking)
    bint vt_has_peer(int fd)
    bint vt_was_reset(int fd)
    int vt_kept_error(int fd)
    bint VT_IS_CONNECTING(int error)
    int vt_close(int fd)
    bint vt_is_stream(int fd)
    object vt_address_object(vt_address *address)
    bint vt_read_pair(vt_address *address, object pair)
    bint vt_read(vt_address *address, int family, const char *text, int port, unsigned flow, unsigned scope)

cdef object NO_FLAGS = 0

# From the C class, because a subclass or a patch may replace them.
cdef object family = Original.family
cdef object original_recv = Original.recv, original_recv_into = Original.recv_into
cdef object original_send = Original.send, original_sendall = Original.sendall
cdef int AF_INET = _socket.AF_INET
cdef int AF_INET6 = _socket.AF_INET6
cdef int MSG_OOB = _socket.MSG_OOB
cdef int AF_UNIX = getattr(_socket, "AF_UNIX", AF_INET)

# The same calls in Python.
cdef dict readable_calls = {}


def quick_socket_calls(readable, managed_sockets):
    """The compiled calls of sockets, by name; see the contract."""
    global readable_calls, managed
    readable_calls, managed = readable, managed_sockets
    calls = (recv, recv_into, recvfrom, send, sendall, sendto, connect, _accept) if VT_HAS_SOCKETS else ()
    for call in calls:
        call.__qualname__ = f"socket.{call.__name__}"
    return {call.__name__: call for call in calls}


cdef inline bint _has_known_addresses(sock) except -1:
    """Return whether `vt_address_object` knows the addresses of the family of `sock`."""
    cdef int kind = vt_member(family, sock)
    return kind == AF_INET or kind == AF_INET6 or kind == AF_UNIX


cdef inline bint _original_does(sock) except -1:
    """Return whether a plain call of the original is right: on a plain OS thread, with a timeout stored in CPython."""
    return vt_here is NULL and (not managed or id(sock) not in managed)


cdef inline bint _reads_urgent(flags):
    """Return whether `flags` request urgent data: from then on a short read proves nothing, on an OS thread too."""
    # The flags in `socket` belong to a subclass of int.
    return flags is not NO_FLAGS and isinstance(flags, int) and flags & MSG_OOB != 0


cdef Py_ssize_t _receive(sock, Fiber fiber, int fd, double timeout, char *buffer, Py_ssize_t room, str name) except -1:
    """Read the available data into `buffer`; wait for some if there is none. Return their size."""
    cdef double deadline = _deadline(fiber, timeout)
    cdef Descriptor entry = fiber._scheduler.descriptors.find(fd, sock)
    cdef Py_ssize_t count
    while True:
        if entry is None or entry.readable or entry._mode != mode_version:
            count = vt_recv(fd, buffer, room)
            if count >= 0:
                # A short read means that the kernel's buffer is empty, so the next call parks without an attempt.
                if 0 < count < room and entry is not None and entry.short_read_drains:
                    entry.drained()
                return count
            if not _would_block(errno):
                continue
            if entry is not None:
                entry.drained()
        entry = _wait(fiber, sock, fd, READ, deadline, entry, name, LATE)
        if entry is None:
            return 0


@cython.binding(True)
def recv(self, bufsize, flags=0, /):
    """`socket.recv`, which parks a virtual thread."""
    cdef int fd = -1
    cdef double timeout = 0
    cdef Py_ssize_t room
    cdef Fiber fiber = None
    if type(bufsize) is int and bufsize > 0 and type(flags) is int and not flags:
        fiber = _caller(self, &fd, &timeout)
    if fiber is None:
        return _receive_otherwise(self, bufsize, flags)
    room = bufsize
    if room > SCRATCH:
        return _receive_large(self, fiber, fd, timeout, room)
    # The buffer is shared by all fibers of the scheduler: no other code runs between the read and the copy.
    return PyBytes_FromStringAndSize(
        fiber._scheduler._scratch,
        _receive(self, fiber, fd, timeout, fiber._scheduler._scratch, room, "socket.recv"),
    )


cdef object _receive_otherwise(sock, bufsize, flags):
    if _original_does(sock) and not _reads_urgent(flags):
        return original_recv(sock, bufsize, flags)
    return readable_calls["recv"](sock, bufsize, flags)


cdef object _receive_large(sock, Fiber fiber, int fd, double timeout, Py_ssize_t room):
    """Read into a new buffer. Apart from `recv`, whose frame would be larger with `finally`."""
    cdef char *buffer = <char *>PyMem_Malloc(room)
    if buffer is NULL:
        raise MemoryError
    try:
        return PyBytes_FromStringAndSize(buffer, _receive(sock, fiber, fd, timeout, buffer, room, "socket.recv"))
    finally:
        PyMem_Free(buffer)


@cython.binding(True)
def recv_into(self, buffer, nbytes=0, flags=0):
    """`socket.recv_into`, which parks a virtual thread."""
    cdef int fd = -1
    cdef double timeout = 0
    cdef Py_ssize_t wanted
    cdef Py_buffer view
    cdef Fiber fiber = None
    if _original_does(self) and not _reads_urgent(flags):
        return original_recv_into(self, buffer, nbytes, flags)
    if type(nbytes) is int and nbytes >= 0 and type(flags) is int and not flags:
        fiber = _caller(self, &fd, &timeout)
    if fiber is None:
        return readable_calls["recv_into"](self, buffer, nbytes, flags)
    try:
        PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE)
    except (TypeError, BufferError):
        # The Python version raises the error for it.
        return readable_calls["recv_into"](self, buffer, nbytes, flags)
    try:
        wanted = nbytes or view.len
        if not 0 < wanted <= view.len:
            return readable_calls["recv_into"](self, buffer, nbytes, flags)
        return _receive(self, fiber, fd, timeout, <char *>view.buf, wanted, "socket.recv_into")
    finally:
        PyBuffer_Release(&view)


@cython.binding(True)
def recvfrom(self, bufsize, flags=0, /):
    """`socket.recvfrom`, which parks a virtual thread."""
    cdef int fd = -1
    cdef double timeout = 0, deadline
    cdef Py_ssize_t room, count
    cdef vt_address sender
    cdef Fiber fiber = None
    if type(bufsize) is int and 0 < bufsize <= SCRATCH and type(flags) is int and not flags and _has_known_addresses(self):
        fiber = _caller(self, &fd, &timeout)
    if fiber is None:
        return readable_calls["recvfrom"](self, bufsize, flags)
    deadline = _deadline(fiber, timeout)
    room = bufsize
    while True:
        count = vt_recvfrom(fd, fiber._scheduler._scratch, room, &sender)
        if count >= 0:
            data = PyBytes_FromStringAndSize(fiber._scheduler._scratch, count)
            return data, vt_address_object(&sender)
        if _would_block(errno) and _wait(fiber, self, fd, READ, deadline, None, "socket.recvfrom", LATE) is None:
            return b"", None


@cython.binding(True)
def send(self, data, flags=0, /):
    """`socket.send`, which parks a virtual thread."""
    cdef int fd = -1
    cdef double timeout = 0, deadline
    cdef Py_ssize_t count
    cdef Py_buffer view
    cdef Fiber fiber = None
    if _original_does(self):
        return original_send(self, data, flags)
    if type(flags) is int and not flags:
        fiber = _caller(self, &fd, &timeout)
    if fiber is None:
        return readable_calls["send"](self, data, flags)
    deadline = _deadline(fiber, timeout)
    try:
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    except (TypeError, BufferError):
        return readable_calls["send"](self, data, flags)
    try:
        while True:
            count = vt_send(fd, <const char *>view.buf, view.len)
            if count >= 0:
                return count
            if _would_block(errno):
                if not vt_is_stream(fd):
                    # Whether a Unix datagram can be sent depends on the receiver's queue, not on readiness: the Python
                    # version tries again after pauses.
                    return readable_calls["send"](self, data, flags)
                _wait(fiber, self, fd, WRITE, deadline, None, "socket.send", LATE)
    finally:
        PyBuffer_Release(&view)


@cython.binding(True)
def sendall(self, data, flags=0, /):
    """`socket.sendall`, which parks a virtual thread."""
    cdef int fd = -1
    cdef double timeout = 0, deadline
    cdef Py_ssize_t count, sent = 0
    cdef Py_buffer view
    cdef Fiber fiber = None
    if _original_does(self):
        return original_sendall(self, data, flags)
    if type(flags) is int and not flags:
        try:
            fiber = _caller(self, &fd, &timeout)
        except Cancelled as cancelled:
            cancelled.bytes_sent = 0
            raise
    if fiber is None:
        return readable_calls["sendall"](self, data, flags)
    deadline = _deadline(fiber, timeout)
    try:
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    except (TypeError, BufferError):
        return readable_calls["sendall"](self, data, flags)
    try:
        while True:
            count = vt_send(fd, <const char *>view.buf + sent, view.len - sent)
            if count >= 0:
                sent += count
                if sent >= view.len:
                    return None
            elif _would_block(errno):
                _wait(fiber, self, fd, WRITE, deadline, None, "socket.sendall", LATE)
    except Cancelled as cancelled:
        cancelled.bytes_sent = sent
        raise
    finally:
        PyBuffer_Release(&view)


@cython.binding(True)
def sendto(self, data, *flags_and_address):
    """`socket.sendto`, which parks a virtual thread."""
    cdef int fd = -1
    cdef double timeout = 0, deadline
    cdef Py_ssize_t count
    cdef Py_buffer view
    cdef vt_address receiver
    cdef Fiber fiber = None
    if len(flags_and_address) == 1 and _read_address(self, flags_and_address[0], &receiver):
        fiber = _caller(self, &fd, &timeout)
    if fiber is None:
        return readable_calls["sendto"](self, data, *flags_and_address)
    deadline = _deadline(fiber, timeout)
    try:
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    except (TypeError, BufferError):
        return readable_calls["sendto"](self, data, *flags_and_address)
    try:
        PySys_Audit("socket.sendto", "OO", <PyObject *>self, <PyObject *>flags_and_address[0])
        while True:
            count = vt_sendto(fd, <const char *>view.buf, view.len, &receiver)
            if count >= 0:
                return count
            if _would_block(errno):
                _wait(fiber, self, fd, WRITE, deadline, None, "socket.sendto", LATE)
    finally:
        PyBuffer_Release(&view)


# Repeats `_is_numeric`.
cdef bint _read_address(sock, address, vt_address *read) except -1:
    """Return whether `address` is a numeric IPv4 or IPv6 address of the family of `sock`, and so needs no look-up."""
    cdef unsigned flow = 0, scope = 0
    cdef int kind = vt_member(family, sock)
    if kind == AF_INET:
        return vt_read_pair(read, address)
    if kind != AF_INET6 or type(address) is not tuple:
        return False
    count = len(<tuple>address)
    if count != 2 and count != 4:
        return False
    for number in (<tuple>address)[1:]:
        if type(number) is not int or number < 0:
            return False
    host, port = (<tuple>address)[:2]
    if port > 0xFFFF or type(host) is not str or not (<str>host).isascii() or "\0" in <str>host:
        return False
    if count == 4:
        if (<tuple>address)[2] > 0xFFFFF or (<tuple>address)[3] > 0xFFFFFFFF:
            return False
        flow, scope = (<tuple>address)[2:]
    return vt_read(read, kind, (<str>host).encode(), port, flow, scope)


# Repeats `_connect`, `_has_peer` and `_was_reset`.
@cython.binding(True)
def connect(self, address, /):
    """`socket.connect`, which parks a virtual thread."""
    cdef int fd = -1, error, was_blocking = 1
    cdef double timeout = 0, deadline
    cdef vt_address peer
    cdef Fiber fiber = None
    if _read_address(self, address, &peer):
        fiber = _caller(self, &fd, &timeout)
    if fiber is None:
        return readable_calls["connect"](self, address)
    deadline = _deadline(fiber, timeout)
    PySys_Audit("socket.connect", "OO", <PyObject *>self, <PyObject *>address)
    while True:
        error = vt_connect(fd, &peer, &was_blocking)
        if VT_IS_CONNECTING(error) or error == EINTR:
            if not was_blocking and not (managed and id(self) in managed):
                # The program made the socket non-blocking, so it expects this error.
                raise OSError(error, os.strerror(error))
            # On the same machine the connection is usually complete already.
            if not vt_has_peer(fd):
                _wait(fiber, self, fd, WRITE, deadline, None, "socket.connect", LATE)
            error = vt_kept_error(fd)
            # A new socket reports itself writable once before it starts to connect. Only a peer proves the connection.
            if not error and not vt_has_peer(fd):
                if not vt_was_reset(fd):
                    continue
                error = ECONNRESET
        if error:
            raise OSError(error, os.strerror(error))
        return None


# Repeats `_accept_now` and `keep_nonblocking`.
@cython.binding(True)
def _accept(self, /):
    """`socket._accept`, which parks a virtual thread."""
    cdef int fd = -1, accepted, kept = 0
    cdef double timeout = 0, deadline
    cdef vt_address peer
    cdef Fiber fiber = None
    # The first call on a listener without a timeout is made by the Python version, which makes it non-blocking.
    if managed and id(self) in managed and _has_known_addresses(self):
        fiber = _caller(self, &fd, &timeout)
    if fiber is None:
        return readable_calls["_accept"](self)
    deadline = _deadline(fiber, timeout)
    while True:
        # Accept again after each wait: another process that shares the listener may have accepted the connection.
        accepted = vt_accept(fd, &peer, &kept)
        if accepted >= 0:
            try:
                return accepted, vt_address_object(&peer)
            except BaseException:  # raised again: no caller has the connection yet, so close it first
                vt_close(accepted)
                raise
        if _would_block(errno):
            if timeout == INF and not kept:
                # The program made it non-blocking meanwhile.
                raise OSError(EAGAIN, os.strerror(EAGAIN))
            if _wait(fiber, self, fd, READ, deadline, None, "socket.accept", LATE) is None:
                raise OSError(EINVAL, os.strerror(EINVAL))
