# Types for `recent.py`, where it is compiled.

cdef class Recent:
    cdef Py_ssize_t _most
    cdef dict _newer, _older

    cpdef get(self, key)
    cpdef add(self, key, value)
