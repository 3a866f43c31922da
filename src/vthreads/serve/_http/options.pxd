# Types for `options.py`, where it is compiled.

from vthreads.serve._request_ids cimport RequestIds
from vthreads.serve._sight cimport Sight

from .known_heads cimport KnownHeads

cdef class HttpOptions:
    cdef public object application, limits, proxies, tls, write_timeout
    cdef public Sight sight
    cdef public bint cancel_when_gone, half_close, proxy_protocol
    cdef public KnownHeads heads
    cdef public RequestIds ids
    cdef public Py_ssize_t in_flight
    cdef public double most_in_flight, oldest, request_seconds
