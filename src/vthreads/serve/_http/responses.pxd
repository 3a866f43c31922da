# Types for `responses.py`, where it is compiled.

from .field_lines cimport Lines

cdef class Response:
    cdef object _request, _sender, _scope, _head_at, _left
    cdef Lines _lines
    cdef bint _is_chunked
    cdef public object phase, status
    cdef public bint has_body, keeps_alive

    cpdef write(self, data)
    cpdef write_all(self, parts)
    cpdef announce(self, length)
    cpdef finish(self)
    cdef _send_with_head(self, data, length)
    cdef bytes _head(self, length)
    cdef bytes _framed(self, bytes data)

cdef tuple _date_of
cpdef str _date_line()
