# Types for `_websocket.py`, where it is compiled.

from ._frames cimport data_frame, payload_of, size_of

cdef class WebSocket:
    cdef object __weakref__
    # Programs may set attributes of a WebSocket.
    cdef dict __dict__
    cdef readonly object _messages
    cdef object _exchange, _protocol, _sending, _taken_in, _unmask
    cdef double _close_seconds, _ping_seconds, _pinged_at, _pong_seconds
    cdef bint _has_ended, _is_broken, _is_text
    cdef list _parts
    cdef Py_ssize_t _most_bytes, _unparsed

    cdef _receive_some(self, double until)
    cdef _seconds_to_wait(self, double until)
    cdef _ping(self)
    cdef _handle(self, bytes data)
    cdef Py_ssize_t _take_whole(self, bytes data) except -1
    cdef _take(self, frame)
    cdef _keep(self, bytes message)
    cdef bint _is_open(self) except -1
    cdef _check_open(self)
    cdef _flush(self)
    cdef _send_all(self, bytes data)
