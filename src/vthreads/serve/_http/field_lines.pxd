# Types for `field_lines.py`, where it is compiled.

cdef class Lines:
    cdef readonly object code, length
    cdef readonly bint has_date, may_recur
    cdef readonly str text
    cdef bytes _head
    cdef str _date, _end
    cdef int _framing
    cdef Py_ssize_t _size

    cpdef bytes head(self, int framing, Py_ssize_t size, str date, str end)
    cdef _set_known(self, name, value)

cpdef Lines lines_of(status, fields)
