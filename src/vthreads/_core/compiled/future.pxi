# The fields of a future, and `result` for one that is done.

# Supplied by the readable code.
cdef object Future = None, FINISHED = None, CANCELLED = None, FUTURE_RUNNING = None
cdef Section changing_futures = None


cdef class FutureFields:
    cdef public object thread, _state, _result, _exception, _waiting, _callbacks, _made_condition, _made_waiters
    cdef public object _traceback


# Repeats `Future._wait` and `Future.exception`.
@cython.binding(True)
def future_result(self, timeout=None):
    cdef FutureFields future = <FutureFields>self if isinstance(self, FutureFields) else None
    if future is None or future._state is not FINISHED or future._exception is not None:
        return readable_parts["vthreads._core.future.Future.result"](self, timeout)
    timeout = _checked(timeout)
    if timeout is None or <double>timeout > 0:
        _check()
    return future._result
