# `os.read` of pipes in blocking mode; all other descriptors and uncommon arguments are passed to the Python version. And
# reads of small files that are in the page cache.

cdef extern from "_calls/files/compiled/pipes.h":
    Py_ssize_t VT_PIPE_BUF
    bint vt_is_blocking_pipe(int fd)
    Py_ssize_t vt_read_now(int fd, char *buffer, Py_ssize_t room)
    Py_ssize_t vt_left(int fd) nogil
    void vt_step_back(int fd, Py_ssize_t count)
    Py_ssize_t vt_write_now(int fd, char *data, Py_ssize_t size)

# The owner of all descriptors that are known by their number only.
cdef object some_library = None


def set_reading_names(*, owner):
    global some_library
    some_library = owner


cdef inline int _pipe(fd) except -2:
    """Return the number `fd` if it is that of a pipe in blocking mode; else -1."""
    if type(fd) is not int or not 0 <= fd <= 0x7FFFFFFF or not vt_is_blocking_pipe(fd):
        return -1
    return fd


# Repeats `read_vector`, `park_for_library` and `_park`.
@cython.binding(True)
def os_read(fd, length, /):
    cdef Fiber fiber = _here()
    cdef Descriptors descriptors
    cdef Descriptor entry
    cdef Py_ssize_t room, count
    cdef int number = -1
    if fiber is not None and type(length) is int and 0 < length <= SCRATCH:
        number = _pipe(fd)
    if number < 0:
        return readable_parts["vthreads._calls.files.reading.read"](fd, length)
    Fiber._check(fiber)
    room = length
    descriptors = fiber._scheduler.descriptors
    while True:
        # The buffer is shared by all fibers of the scheduler: no other code runs between the read and the copy.
        count = vt_read_now(number, fiber._scheduler._scratch, room)
        if count >= 0:
            return PyBytes_FromStringAndSize(fiber._scheduler._scratch, count)
        if errno != EAGAIN:
            # Not supported by the kernel, or an error.
            return readable_parts["vthreads._calls.files.reading.read"](fd, length)
        entry = descriptors._at(number)
        if entry is None:
            entry = descriptors.claim(number, some_library)
        descriptors.enlist(entry, READ, fiber, by_number=True)
        fiber._waits_in, fiber._waits_on = "read", fd
        answer = fiber._stay(None, INF)
        descriptors.withdraw(entry, READ, fiber)
        if answer is not True:
            _raise_for(fiber, answer)
        Fiber._check(fiber)


@cython.binding(True)
def rest_in_cache(int fd):
    cdef Fiber fiber = _here()
    return None if fiber is None else _rest_in_cache(fiber, fd)


cdef _rest_in_cache(Fiber fiber, int fd):
    cdef Py_ssize_t count, left
    # A file system on the network may ask its server.
    with nogil:
        left = vt_left(fd)
    if not 0 < left < SCRATCH:
        return None
    # The buffer is shared by all fibers of the scheduler: no other code runs between the read and the copy.
    count = vt_read_now(fd, fiber._scheduler._scratch, left + 1)
    if count == left:
        return PyBytes_FromStringAndSize(fiber._scheduler._scratch, count)
    if count > 0:
        vt_step_back(fd, count)
    return None
