# Types for `exchanges.py`, where it is compiled.

from .heads cimport Head
from .responses cimport Response
from .streams cimport Stream

cdef class Exchange:
    cdef readonly object connection, client, request_id, scope, body, ended
    cdef readonly Head head
    cdef readonly Response response
    cdef readonly Stream stream
    cdef readonly bint is_upgraded
    cdef public object end_upgraded, hurry_upgraded, take_in_upgraded
    cdef bint _is_receiving, _noticed_end
