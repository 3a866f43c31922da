# The attempts of a call on a socket: who calls, and the wait between two attempts.

import os
import _socket
from errno import EAGAIN, EBADF, EPIPE
from weakref import ref

cdef extern from "_calls/net/compiled/socket.h":
    ctypedef struct vt_getter:
        pass
    vt_getter vt_getter_of(object descriptor)
    object vt_call_getter(vt_getter *getter, object sock)
    bint vt_is_blocking(int fd)
    bint vt_has_read_end(int fd)
    bint VT_WOULD_BLOCK(int error)

# From the C class, because a subclass or a patch may replace them.
cdef object Original = _socket.socket
cdef vt_getter get_fileno = vt_getter_of(Original.fileno), get_timeout = vt_getter_of(Original.gettimeout)

# The timeouts of managed sockets, by id of the socket.
cdef dict managed = {}


cdef inline int _fileno(sock) except? -1:
    return vt_call_getter(&get_fileno, sock)


# Repeats `attempts_on`.
cdef Fiber _caller(sock, int *fd, double *timeout):
    """Return the calling fiber, after the checkpoint; None if the Python version must handle the call.

    That is so on a plain OS thread, on a socket that is non-blocking or closed, and if CPython stores its timeout.
    """
    cdef Fiber fiber
    if vt_here is NULL or (<Scheduler>vt_here).running is None:
        return None
    fiber = <Fiber>(<Scheduler>vt_here).running
    seconds = vt_call_getter(&get_timeout, sock)
    if seconds is not None:
        # CPython sees a managed socket as non-blocking. So one that it sees as blocking is not looked up here: a server
        # always has a managed socket, its listener, and would search for each of its connections without a result.
        entry = managed.get(id(sock)) if managed else None
        seconds = 0 if entry is None else entry.timeout
        if seconds is not None and not seconds:
            return None
    timeout[0] = INF if seconds is None else <double>seconds
    Fiber._check(fiber)
    fd[0] = _fileno(sock)
    return None if fd[0] < 0 else fiber


# The text of a timeout of a socket.
cdef str LATE = "timed out"


cdef inline double _deadline(Fiber fiber, double timeout) except? -1:
    return INF if timeout == INF else fiber._scheduler.now() + timeout


# Repeats `_Attempts`, `park_for_owned` and `_park`.
cdef Descriptor _wait(
    Fiber fiber, sock, int fd, int direction, double deadline, Descriptor entry, str name, str late
):
    """Park until `sock` is ready, after an attempt that would block; return its entry. A checkpoint.

    `entry` is None if the caller does not know it. The result is None if the data have ended, because the socket was
    shut down; see the Python version. Like the functions of the scheduler that are on the stack during a switch, it
    leaves to others what comes before and after.
    """
    entry = _begin_wait(fiber, sock, fd, direction, deadline, entry, name, late)
    if entry is None:
        return None
    return _end_wait(fiber, sock, fd, direction, entry, fiber._stay(None, deadline), late)


cdef Descriptor _begin_wait(
    Fiber fiber, sock, int fd, int direction, double deadline, Descriptor entry, str name, str late
):
    cdef Scheduler scheduler = fiber._scheduler
    cdef Descriptors descriptors = scheduler.descriptors
    if deadline < INF and deadline <= scheduler.now():
        raise TimeoutError(late)
    # The caller has looked it up before its attempt. A signal handler may have closed the socket since.
    if descriptors._at(fd) is not entry:
        entry = descriptors.find(fd, sock)
    if entry is None:
        entry = descriptors.claim(fd, ref(sock))
    if entry._mode != mode_version:
        if not (managed and id(sock) in managed) and not vt_is_blocking(fd):
            raise OSError(EAGAIN, os.strerror(EAGAIN))
        entry.waits()
    # Pollers other than epoll do not report every hangup.
    if direction == READ and (entry.hung_up or descriptors._epoll < 0) and vt_has_read_end(fd):
        return None
    if descriptors._epoll < 0:
        descriptors._poller.arm(fd, direction)
    entry.enlist(direction, fiber)
    descriptors.waiting += 1
    fiber._waits_in, fiber._waits_on = name, sock
    return entry


cdef Descriptor _end_wait(Fiber fiber, sock, int fd, int direction, Descriptor entry, answer, str late):
    cdef Descriptors descriptors = fiber._scheduler.descriptors
    descriptors.withdraw(entry, direction, fiber)
    if answer is CLOSED:
        return _after_close(entry, direction)
    if answer is TIMED_OUT:
        raise TimeoutError(late)
    if answer is not True:
        _raise_for(fiber, answer)
    fiber._check_landed()
    # Others ran since the edge came. If one of them closed the socket, its number may mean another file by now.
    if _fileno(sock) != fd or entry.ended & direction and descriptors._at(fd) is not entry:
        return _after_close(entry, direction)
    return entry


cdef Descriptor _after_close(Descriptor entry, int direction):
    """Return or raise what a call gets whose socket was closed during its wait; see the Python version."""
    if not entry.ended & direction:
        raise OSError(EBADF, os.strerror(EBADF))
    if direction == WRITE:
        raise OSError(EPIPE, os.strerror(EPIPE))
    return None


cdef int _raise_for(Fiber fiber, answer) except -1:
    """Raise the exception that ended the wait for a descriptor."""
    if answer is ABORTED:
        fiber._raise_aborted()
    if answer is CLOSED:
        raise OSError(EBADF, os.strerror(EBADF))
    if answer is TIMED_OUT:
        raise TimeoutError("timed out")
    # The wait itself ended with the pending exception.
    raise answer


cdef bint _would_block(int error) except -1:
    """After a failed attempt: return whether to wait (true) or to try again; raise any other error."""
    if VT_WOULD_BLOCK(error):
        return True
    if error != EINTR:
        raise OSError(error, os.strerror(error))
    PyErr_CheckSignals()
    return False
