# The semaphore.

from vthreads._core.copies import refuse_copy

# Supplied by the readable code.
cdef object semaphore_statistics = None


cdef class Semaphore:
    """Like `threading.Semaphore`, but fair. See the Python class of this name."""

    cdef public object _value
    cdef readonly object _initial
    cdef readonly WaitQueue _waiting
    cdef readonly Section _changing
    cdef object __weakref__

    def __cinit__(self, *_, **__):
        self._waiting = WaitQueue.__new__(WaitQueue)
        self._changing = Section.__new__(Section)

    def __init__(self, value=1):
        self._value = self._initial = checked_count(value, "value", 0)

    def __reduce__(self):
        refuse_copy(self)

    def __repr__(self):
        return f"<{type(self).__name__} value={self._value} waiting={len(self._waiting)}>"

    @cython.binding(True)
    def acquire(self, blocking=True, timeout=None):
        if not blocking and timeout is not None:
            raise ValueError("can't specify timeout for non-blocking acquire")
        timeout = _checked(timeout)
        if not blocking or (timeout is not None and <double>timeout <= 0):
            return self._take()
        _check()
        if self._take():
            return True
        waiter = _waiter_here()
        if self._take_or_queue(waiter):
            return True
        return _park_in(self._waiting, waiter, timeout, "Semaphore.acquire", self) is not TIMED_OUT

    def __enter__(self):
        return Semaphore.acquire(self)

    def __exit__(self, *_):
        self.release()

    cdef bint _take(self) except -1:
        cdef bint taken
        self._changing._enter()
        try:
            taken = self._value > 0
            if taken:
                self._value -= 1
        finally:
            self._changing._leave()
        return taken

    cpdef bint _take_or_queue(self, waiter) except -1:
        """Acquire a permit now, or queue `waiter`, which then owns a permit when it is unparked."""
        with self._changing:
            while not self._take():
                self._waiting.add(waiter)
                # A finalizer may have released a permit before the waiter was queued.
                if not self._value or not self._waiting.withdraw(waiter):
                    return False
            return True

    @cython.binding(True)
    def _withdraw(self, waiter):
        return self._waiting.withdraw(waiter)

    @cython.binding(True)
    def release(self, n=1):
        if n is not ONE:
            n = checked_count(n, "n", 1)
        with self._changing:
            for _ in range(n):
                if not self._waiting.unpark_one():
                    self._value += 1

    @cython.binding(True)
    def statistics(self):
        return semaphore_statistics(self._value, len(self._waiting))
