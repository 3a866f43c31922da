# Types for `_sight.py`, where it is compiled.

from ._board cimport Row

cdef class Sight:
    cdef object _log, _seen_dropped
    cdef readonly Row row
    cdef readonly Py_ssize_t ended_requests

    cpdef refused(self, status, reason)
    cpdef ended(self, client, request_id, head, Py_ssize_t status, double seconds, Py_ssize_t sent)
    cdef _of_head(self, head)
