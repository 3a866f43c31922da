# Types for `parser.py`, where it is compiled.

from .heads cimport Head

cdef class HeadParser:
    cdef object _parser
    cdef bytes _target
    cdef list _fields

    cpdef Head parse(self, bytes raw)
