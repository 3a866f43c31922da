# `sleep`, and the replacement of `time.sleep`.

from vthreads._core.originals import sleep as original_sleep

cdef extern from "compiled/sleep.h":
    object vt_time_sleep(object (*sleeps)(object, object), object (*yields)())


@cython.binding(True)
def sleep(seconds):
    cdef Fiber fiber = _here()
    cdef double span = _span(seconds)
    if fiber is not None:
        if span > 0:
            return _sleep(fiber, span)
        if span == 0:
            return _yield_here()
    # The Python version handles all other arguments, or raises the error.
    return readable_parts["vthreads._timeouts.sleep"](seconds)


# Repeats `sleep_here`.
cdef object _sleep_here(self, seconds):
    cdef Fiber fiber = _here()
    cdef double span
    if fiber is None:
        if vt_here is not NULL:
            return readable_parts["vthreads._timeouts.sleep_here"](seconds)
        return original_sleep(seconds)
    span = _span(seconds)
    if span == 0:
        return fiber._yield_now()
    if 0 < span < LONGEST_TIMEOUT:
        return _sleep(fiber, span)
    return readable_parts["vthreads._timeouts.sleep_here"](seconds)


cdef object _yield_here():
    """`_sleep_here(None, 0)`, with borrowed references only: its frame is on the C stack during the switch."""
    if vt_here is NULL or (<Scheduler>vt_here).running is None or (<Fiber>(<Scheduler>vt_here).running)._pending:
        # While the flag is set, a subclass may have another `_yield_now`.
        return _sleep_here(None, 0)
    (<Fiber>(<Scheduler>vt_here).running)._begin_checkpoint()
    (<Scheduler>vt_here)._yield()
    # In the child of a fork this may be another scheduler.
    if vt_here is not NULL and (<Scheduler>vt_here).running is not None:
        (<Fiber>(<Scheduler>vt_here).running)._end_checkpoint()
    return None


# A builtin function, like the original, with its name and module: its calls cost the same, and as an attribute of a
# class it does not become a method.
cdef object sleep_here = vt_time_sleep(_sleep_here, _yield_here)


cdef object _sleep(Fiber fiber, double span):
    Fiber._check(fiber)
    if fiber._has_begun_to_wait:
        _waiter_here()._park(None, span)
        return
    fiber._waits_in = "sleep"
    answer = fiber._stay(None, fiber._scheduler.now() + span)
    if answer is ABORTED:
        fiber._raise_aborted()
    if isinstance(answer, BaseException):
        raise answer
