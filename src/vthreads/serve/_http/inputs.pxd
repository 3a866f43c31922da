# Types for `inputs.py`, where it is compiled.

cdef class Input:
    cdef readonly bytes _data
    cdef Py_ssize_t _start, _empty_lines
    cdef public bint last_is_head

    cpdef add(self, bytes data)
    cpdef bytes take_head(self)
    cdef _skip_empty_lines(self)
    cpdef bytes take(self, Py_ssize_t most)
    cpdef bytes take_line(self, Py_ssize_t longest)
