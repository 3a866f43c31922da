# Reads and writes of managed `ssl.SSLSocket`s. Uncommon arguments, subclasses and all other states go to the Python
# versions.

cdef extern from "_calls/net/compiled/ssl.h":
    bint vt_has_nothing(int fd)

# Names of `ssl`, which a program without TLS does not import.
cdef object TLS = None
cdef object WantsRead = None, WantsWrite = None, TLSError = None, RAGGED_END = None
# Names of `ssl.py`.
cdef object UNFINISHED = None, AT_END = None
cdef Py_ssize_t RECORD = 0


def set_tls_names(*, socket_class, wants_read, wants_write, error, ragged_end, unfinished, record, at_end):
    global TLS, WantsRead, WantsWrite, TLSError, RAGGED_END, UNFINISHED, RECORD, AT_END
    TLS, WantsRead, WantsWrite, TLSError, RAGGED_END = socket_class, wants_read, wants_write, error, ragged_end
    UNFINISHED, RECORD, AT_END = unfinished, record, at_end


# Repeats `_repeat` and `_refuse_if_broken`.
cdef Fiber _tls_caller(sock, int *fd, double *timeout):
    """Return the calling fiber, after the checkpoint; None if the Python version must handle the call."""
    if vt_here is NULL or type(sock) is not TLS or not managed or id(sock) not in managed:
        return None
    if UNFINISHED in sock.__dict__:
        return None
    fiber = _caller(sock, fd, timeout)
    # At the checkpoint others may have run, and have ended TLS.
    return None if sock._sslobj is None else fiber


# Repeats `_repeat`.
cdef Descriptor _wait_for_tls(Fiber fiber, sock, int fd, int direction, double deadline, str name, str late):
    """`_wait`, which returns None at the end of data for a writer as well."""
    try:
        return _wait(fiber, sock, fd, direction, deadline, None, name, late)
    except BrokenPipeError:
        return None


# Repeats `_with_tls`.
cdef object _tls_of(sock, first):
    """Return the TLS object of `sock`, or that of the first attempt if a shutdown has taken it away."""
    tls = sock._sslobj
    return first if tls is None else tls


cdef object _decrypted(sock, tls, int fd, wanted, buffer, Descriptor entry, int *direction):
    """Return what is read; None if OpenSSL needs `direction` first."""
    try:
        answer = tls.read(wanted) if buffer is None else tls.read(wanted, buffer)
    except WantsRead:
        direction[0] = READ
        if entry is not None:
            entry.drained()
        return None
    except WantsWrite:
        direction[0] = WRITE
        return None
    except TLSError as tls_error:
        if tls_error.args[0] == RAGGED_END and sock.suppress_ragged_eofs:
            return b"" if buffer is None else 0
        raise
    count = answer if buffer is not None else len(answer)
    # A short read ends a record. OpenSSL takes no byte of the next one from the kernel, so if the kernel has none
    # either, the next read parks without an attempt. That saves a system call and an exception.
    if 0 < count < wanted and entry is not None and entry.short_read_drains and vt_has_nothing(fd):
        entry.drained()
    return answer


# Repeats `_repeat`.
@cython.binding(True)
def tls_read(self, len=1024, buffer=None):
    cdef int fd = -1, direction = READ
    cdef double timeout = 0, deadline
    cdef Descriptor entry
    cdef Fiber fiber = None
    if type(len) is int and len > 0:
        fiber = _tls_caller(self, &fd, &timeout)
    if fiber is None:
        return readable_parts["vthreads._calls.net.ssl.read"](self, len, buffer)
    deadline = _deadline(fiber, timeout)
    entry = fiber._scheduler.descriptors.find(fd, self)
    tls = self._sslobj
    while True:
        if direction == WRITE or entry is None or entry.readable or entry._mode != mode_version:
            answer = _decrypted(self, _tls_of(self, tls), fd, len, buffer, entry, &direction)
            if answer is not None:
                return answer
        entry = _wait_for_tls(
            fiber, self, fd, direction, deadline, "ssl.SSLSocket.read", "The read operation timed out"
        )
        if entry is None:
            tls = AT_END


cdef object _encrypted(tls, data, Descriptor entry, int *direction):
    """Write `data`; return how much was written, or None if OpenSSL needs `direction` first."""
    try:
        return tls.write(data)
    except WantsRead:
        direction[0] = READ
        if entry is not None:
            entry.drained()
    except WantsWrite:
        direction[0] = WRITE
    return None


# Repeats `_repeat` and `_write`.
cdef object _write_tls(sock, tls, data, Fiber fiber, int fd, double deadline, str name):
    cdef int direction = WRITE
    cdef Descriptor entry = fiber._scheduler.descriptors.find(fd, sock)
    try:
        while True:
            written = _encrypted(_tls_of(sock, tls), data, entry, &direction)
            if written is not None:
                return written
            entry = _wait_for_tls(fiber, sock, fd, direction, deadline, name, "The write operation timed out")
            if entry is None:
                tls = AT_END
    except OSError:
        sock.__dict__.setdefault(UNFINISHED, 0)
        raise
    except (TypeError, ValueError):
        raise
    except BaseException:
        # A part of the record may have been sent, and OpenSSL would accept only the same data again: see `_write`.
        sock.__dict__[UNFINISHED] = True
        raise


@cython.binding(True)
def tls_write(self, data):
    cdef int fd = -1
    cdef double timeout = 0
    cdef Fiber fiber = _tls_caller(self, &fd, &timeout)
    if fiber is None:
        return readable_parts["vthreads._calls.net.ssl.write"](self, data)
    return _write_tls(self, self._sslobj, data, fiber, fd, _deadline(fiber, timeout), "ssl.SSLSocket.write")


@cython.binding(True)
def tls_send(self, data, flags=0):
    cdef int fd = -1
    cdef double timeout = 0
    cdef Fiber fiber = None
    if type(flags) is int and not flags:
        fiber = _tls_caller(self, &fd, &timeout)
    if fiber is None:
        return readable_parts["vthreads._calls.net.ssl.send"](self, data, flags)
    return _write_tls(self, self._sslobj, data, fiber, fd, _deadline(fiber, timeout), "ssl.SSLSocket.send")


# Repeats `sendall` and `_passes_all`.
@cython.binding(True)
def tls_sendall(self, data, flags=0):
    cdef int fd = -1
    cdef double timeout = 0
    cdef Fiber fiber = None
    # A program may have replaced `send`, which the original calls.
    if type(data) is bytes and data and type(flags) is int and not flags and vt_class_has(TLS, "send", tls_send):
        try:
            fiber = _tls_caller(self, &fd, &timeout)
        except Cancelled as cancelled:
            cancelled.bytes_sent = 0
            raise
    if fiber is None:
        return readable_parts["vthreads._calls.net.ssl.sendall"](self, data, flags)
    return _write_all_tls(self, data, fiber, fd, timeout)


cdef object _write_all_tls(sock, bytes data, Fiber fiber, int fd, double timeout):
    cdef Py_ssize_t sent = 0
    # One time limit and one TLS object for all records.
    cdef double deadline = _deadline(fiber, timeout)
    tls = sock._sslobj
    view = None
    record = data
    if len(data) > RECORD:
        view = memoryview(data)
        record = view[:RECORD]
    try:
        while True:
            sent += _write_tls(sock, tls, record, fiber, fd, deadline, "ssl.SSLSocket.sendall")
            if sent >= len(data):
                return None
            record = view[sent : sent + RECORD]
    except OSError:
        if sent:
            sock.__dict__[UNFINISHED] = sent
        raise
    except BaseException as error:
        # The peer has a part of `data`, and the caller does not know which: other data may not follow.
        # By the real type, as `is_a` does.
        if issubclass(type(error), Cancelled):
            error.bytes_sent = sent
        if sent:
            sock.__dict__[UNFINISHED] = True
        raise
