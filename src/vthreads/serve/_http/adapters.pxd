# Types for `adapters.py`, where it is compiled.

cimport cython

from .exchanges cimport Exchange
from .heads cimport Head

cdef class Adapter:
    cdef object _app, _file_wrapper, _upgraded_socket
    cdef dict _base
    cdef str _key, _root

    cpdef handle(self, Exchange exchange)
    cdef _send(self, Exchange exchange, parts)
    @cython.locals(head=Head, environ=dict)
    cdef dict _environ(self, Exchange exchange)
    @cython.locals(target=bytes, authority=bytes, environ=dict)
    cdef dict _of_head(self, Head head)
    @cython.locals(name=bytes, value=bytes, environ=dict)
    cdef dict _of_fields(self, list fields)
    cdef str _below_root(self, str path)

cdef str _key_of(bytes name)
cdef bytes _origin_form(bytes target, bytes authority)
