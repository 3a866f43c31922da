# Types for `streams.py`, where it is compiled.

from .inputs cimport Input
from .options cimport HttpOptions

cdef class Stream:
    cdef readonly object sock
    cdef readonly Input input
    cdef readonly Py_ssize_t written
    cdef HttpOptions _options
    cdef object _managed
    cdef bint is_counted, is_shared

    cdef bint _begin_wait(self) except -1
    cdef _end_wait(self, bint was_counted)
    cpdef enter_flight(self)
    cpdef leave_flight(self)
    cpdef limit(self, seconds)
    cpdef receive(self, seconds)
    cpdef send(self, data)
    cpdef linger(self)
