# Types for `_event_log.py`, where it is compiled.

cimport cython

cdef class EventLog:
    cdef public object fd
    cdef public list places
    cdef object _now, _descriptors, _running
    cdef double _at
    cdef bint _is_polled
    cdef list _codes
    cdef double[::1] _numbers
    cdef Py_ssize_t _count, _full
    cdef dict _places
    cdef Py_ssize_t _depth
    cdef unsigned long long _last_here, _last_call
    cdef int _last_place

    cpdef parked(self, thread)
    cpdef readied(self, thread)
    cpdef runs(self, thread)
    cpdef ended(self, thread)
    cpdef write(self)
    cdef _add(self, long long ident, int kind)
    @cython.locals(here="unsigned long long", call="unsigned long long")
    cdef object _place_of(self, thread)
    cdef object _find_place(self, thread, innermost)
    cdef object _place_inside(self, thread)
    cdef object _add_place(self, key, what, line)
