# Types for `_board.py`, where it is compiled.

cdef Py_ssize_t CLASSES, SUM, SENT, RESPONSES

cdef class Row:
    cdef double[:] _numbers
    cdef object _text

    cpdef answered(self, Py_ssize_t status, double seconds, double sent)
