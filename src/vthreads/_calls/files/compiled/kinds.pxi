# The device of a regular file, without an object for its status.

from cpython.unicode cimport PyUnicode_AsUTF8AndSize

cdef extern from "_calls/files/compiled/kinds.h":
    long long vt_device_of_regular(int fd, const char *path) nogil


@cython.binding(True)
def device_of_regular(file):
    cdef long long device = -1
    cdef int fd = -1
    cdef const char *path = NULL
    cdef Py_ssize_t size = 0
    if type(file) is int:
        if not 0 <= file <= 0x7FFFFFFF:
            return -1
        fd = file
    elif type(file) is str and (<str>file).isascii() and "\0" not in <str>file:
        # ASCII is the same in every encoding of file names.
        path = PyUnicode_AsUTF8AndSize(file, &size)
    else:
        return readable_parts["vthreads._calls.files.kinds.device_of_regular"](file)
    with nogil:
        device = vt_device_of_regular(fd, path)
    return device
