# Types for `_request_ids.py`, where it is compiled.

cdef class RequestIds:
    cdef str _prefix
    cdef unsigned long long _number

    cpdef str new(self)
