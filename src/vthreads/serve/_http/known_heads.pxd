# Types for `known_heads.py`, where it is compiled.

from .heads cimport Head
from .recent cimport Recent

cdef class KnownHeads:
    cdef readonly Recent _by_fields, _seen, _whole

    cpdef Head find(self, bytes raw)
    cpdef keep(self, bytes raw, Head head)
