# Types for `adapters.py`, where it is compiled.

from .exchanges cimport Exchange
from .heads cimport Head

cdef class Adapter:
    cdef object _app, _file_wrapper, _upgraded_socket
    cdef dict _base, _places
    cdef str _key

    cpdef handle(self, Exchange exchange)
    cdef _send(self, Exchange exchange, parts)
    cdef dict _environ(self, Exchange exchange)
    cdef dict _of_head(self, Head head)
    cdef dict _of_fields(self, list fields)
    cdef str _below_root(self, str path)

cdef str _key_of(bytes name)
cdef bytes _origin_form(Head head)
