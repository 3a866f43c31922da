# Types for `rules.py`, where it is compiled.

from .heads cimport Head

cpdef check_raw(bytes raw)
cdef bint _is_ordinary(Head head) except -1
cpdef check_head(Head head)
