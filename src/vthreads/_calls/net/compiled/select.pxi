# `select.select` of one socket to read from, the wait before a `recv` with a limit. All other calls go to the Python
# version.

cdef extern from "_calls/net/compiled/select.h":
    int VT_FD_SETSIZE
    int vt_may_read(int fd)

# Seconds. The Python version checks longer limits.
cdef double LONGEST_LIMIT = 1e6

# Returns the class of sockets.
cdef object class_of_sockets = None


def set_select_names(*, socket_class):
    global class_of_sockets
    class_of_sockets = socket_class


cdef inline bint _has_length(files, Py_ssize_t length):
    """Return whether `files` is a list or tuple of this length."""
    return type(files) is list and len(<list>files) == length or type(files) is tuple and len(<tuple>files) == length


# Repeats `park_for_fds` and `_park`. The entry of a socket needs no new registration: the attempt shows what was
# reported before.
@cython.binding(True)
def select_files(rlist, wlist, xlist, timeout=None, /):
    cdef Fiber fiber = _here()
    cdef Descriptors descriptors
    cdef Descriptor entry
    cdef double deadline = INF, seconds = INF
    cdef int fd, ready
    sock = rlist[0] if fiber is not None and _has_length(rlist, 1) else None
    if timeout is not None:
        seconds = timeout if type(timeout) is float or type(timeout) is int and -1 < timeout < LONGEST_LIMIT else 0
    if (
        not isinstance(sock, Original)
        or type(sock) is not class_of_sockets()
        or not (_has_length(wlist, 0) and _has_length(xlist, 0))
        or timeout is not None and not 0 < seconds < LONGEST_LIMIT
    ):
        return readable_parts["vthreads._calls.net.select.select"](rlist, wlist, xlist, timeout)
    Fiber._check(fiber)
    descriptors = fiber._scheduler.descriptors
    if timeout is not None:
        deadline = fiber._scheduler.now() + seconds
    while True:
        fd = _fileno(sock)
        entry = descriptors.find(fd, sock) if 0 <= fd < VT_FD_SETSIZE else None
        # After a read that emptied the socket, the next edge reports new data: it needs no attempt.
        if entry is None or entry.readable:
            ready = vt_may_read(fd)
            if ready < 0:
                return readable_parts["vthreads._calls.net.select.select"](rlist, wlist, xlist, timeout)
            if ready:
                return [sock], [], []
        if deadline < INF and deadline <= fiber._scheduler.now():
            return [], [], []
        if entry is None:
            entry = descriptors.claim(fd, ref(sock))
        descriptors.enlist(entry, READ, fiber, by_number=False)
        fiber._waits_in, fiber._waits_on = "select", sock
        answer = fiber._stay(None, deadline)
        descriptors.withdraw(entry, READ, fiber)
        if answer is CLOSED:
            fiber._check_landed()
            if _fileno(sock) != fd or vt_may_read(fd) < 0:
                return [sock], [], []
            # The number means another file by now.
            continue
        if answer is not True and answer is not TIMED_OUT:
            _raise_for(fiber, answer)
        fiber._check_landed()
        if answer is TIMED_OUT:
            # Data that arrived meanwhile may not have been reported yet.
            return ([sock] if vt_may_read(_fileno(sock)) > 0 else []), [], []
        # Others ran since the edge came. If one of them closed the socket, its number may mean another file by now.
        if _fileno(sock) != fd:
            return [sock], [], []
        # No other fiber could read since the poll that reported the edge, so another check is needed only if the edge
        # may be one of urgent data alone: they do not make a socket readable for select(2).
        if entry._reported_at == fiber._scheduler.switches and not entry._had_urgent:
            return [sock], [], []
