# Numbers of seconds: the common types are checked here, all others by `arguments.py`.

from cpython.float cimport PyFloat_AS_DOUBLE
from cpython.long cimport PyLong_AsLongLongAndOverflow

from _thread import TIMEOUT_MAX

from vthreads._core.arguments import check_function, checked_count, checked_timeout

cdef object ZERO = 0.0
cdef object ONE = 1
cdef object MINUS_ONE = -1
cdef double LONGEST_TIMEOUT = TIMEOUT_MAX


cdef double _span(seconds):
    """Return the seconds as a C number; -1 if they have an uncommon type. Raises nothing and runs no other code."""
    cdef int overflow
    cdef double span
    if type(seconds) is float:
        span = PyFloat_AS_DOUBLE(seconds)
    elif type(seconds) is int:
        span = <double>PyLong_AsLongLongAndOverflow(seconds, &overflow)
        if overflow:
            return -1
    else:
        return -1
    return span if span >= 0 else -1


# Repeats `checked_timeout`.
cdef object _checked(timeout):
    """Return None or a float, converted before the caller is queued: the conversion may run Python code."""
    cdef double span
    if timeout is None or type(timeout) is float and PyFloat_AS_DOUBLE(timeout) == PyFloat_AS_DOUBLE(timeout):
        return timeout
    span = _span(timeout)
    return checked_timeout(timeout) if span < 0 else span
