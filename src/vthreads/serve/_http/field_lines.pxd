# Types for `field_lines.py`, where it is compiled.

cdef class Lines:
    cdef readonly object code, length
    cdef readonly bint has_date, may_recur
    cdef readonly str text

    cdef _set_known(self, name, value)

cpdef Lines lines_of(status, fields)
