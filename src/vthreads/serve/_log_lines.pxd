# Types for `_log_lines.py`, where it is compiled.

cimport cython

cdef class JsonLines:
    cdef Py_ssize_t _second
    cdef str _when

    @cython.locals(second=Py_ssize_t, milliseconds=Py_ssize_t, microseconds=Py_ssize_t)
    cpdef str line(
        self, double ended, str client, tuple request, Py_ssize_t status, Py_ssize_t sent, double seconds, str request_id
    )

cdef class CommonLines:
    cdef Py_ssize_t _second
    cdef str _when

    @cython.locals(second=Py_ssize_t)
    cpdef str line(
        self, double ended, str client, tuple request, Py_ssize_t status, Py_ssize_t sent, double seconds, str request_id
    )
