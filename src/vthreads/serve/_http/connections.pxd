# Types for `connections.py`, where it is compiled.

from .exchanges cimport Exchange
from .heads cimport Head
from .known_heads cimport KnownHeads
from .options cimport HttpOptions
from .streams cimport Stream

cdef class HttpConnection:
    cdef object _direct, _now, _parser, _peer, _timer, _watch
    cdef readonly Exchange _exchange
    cdef Head _head
    cdef double _began
    cdef Py_ssize_t _written_before
    cdef bint _is_closed, _is_idle, _is_recorded, _is_reported
    cdef public object address, client, limits, request_id, server
    cdef public HttpOptions options
    cdef readonly Stream stream

    cpdef run(self)
    cdef bint _begin(self) except -1
    cdef Head _next_head(self)
    cdef bint _serve(self) except -1
    cdef Exchange _begin_request(self, Head head, scope)
    cdef _record(self, status)
    cdef _handle(self, Exchange exchange)
    cdef bint _end_request(self, Exchange exchange, refusal) except -1
    cdef _report_broken(self, Exchange exchange)
    cdef _run_application(self, Exchange exchange)
    cdef _fail(self, Exchange exchange, error)
    cdef _end_cancelled(self, Exchange exchange)
    cpdef close(self)
    cdef _refuse(self, refusal)
    cdef _await_event(self)
    cdef bint _become_idle(self) except -1
    cdef _examine_client(self)
    cdef bint _spawn_reader(self) except -1
    cdef _lose_client(self)
    cdef _set_timer(self, seconds)
