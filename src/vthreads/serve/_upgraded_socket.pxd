# Types for `_upgraded_socket.py`, where it is compiled.

from ._frames cimport SentFrames

cdef class UpgradedSocket:
    cdef object _exchange, _sending
    cdef SentFrames _frames
