# Types for `_frames.py`, where it is compiled.

cimport cython

cdef class SentFrames:
    cdef bint _is_in_head
    cdef bytes _tail, _header
    cdef Py_ssize_t _unsent
    cdef readonly bint is_closed

@cython.locals(size=Py_ssize_t)
cpdef bytes data_frame(bytes payload, bint is_text)

cpdef Py_ssize_t size_of(Py_ssize_t payload_size)

@cython.locals(left=Py_ssize_t, size=Py_ssize_t, start=Py_ssize_t)
cpdef bytes payload_of(bytes data, Py_ssize_t at, Py_ssize_t most, unmask)
