# Types for `responses.py`, where it is compiled.

from .field_lines cimport Lines
from .heads cimport Head
from .streams cimport Stream

cdef object BROKEN, NEW, SENDING, SENT, STARTED, UPGRADED
cdef str CLOSES, STAYS, STAYS_1_0

cdef class Response:
    cdef object _scope, _unsent
    cdef double _head_at
    cdef Head _request
    cdef Stream _stream
    cdef Lines _lines
    cdef bint _is_chunked
    cdef readonly object phase
    cdef readonly object status
    cdef readonly bint is_sent_or_sending
    cdef public bint has_body, keeps_alive

    cpdef write(self, data)
    cpdef write_all(self, parts)
    cpdef announce(self, length)
    cpdef finish(self)
    cdef _send_with_head(self, data, length)
    cdef bytes _head(self, length)
    cdef bytes _framed(self, bytes data)

cdef bytes checked_bytes(part)
cdef tuple _date_of
cpdef str _date_line()
