# Types for `options.py`, where it is compiled.

from .known_heads cimport KnownHeads

cdef class HttpOptions:
    cdef public object application, limits, new_id, proxies, sight, tls, write_timeout
    cdef public bint cancel_when_gone, half_close, proxy_protocol
    cdef public KnownHeads heads
    cdef public Py_ssize_t in_flight
