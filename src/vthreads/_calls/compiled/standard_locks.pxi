# The lock that the standard library's `Condition.wait` waits with.


cdef class ConditionWaiterLock(Lock):
    """The lock that `Condition.wait` acquires twice. See the Python class of this name.

    Between a check of its state and a change, no other Python code can run, so it needs no section.
    """

    # The thread that holds it; 0 for none.
    cdef unsigned long long _taker
    # Whether the second acquire has begun.
    cdef bint _awaited

    _always_checks = False

    @cython.binding(True)
    def acquire(self, blocking=True, timeout=-1):
        cdef unsigned long long me = _ident_here()
        if self._taken and self._taker == me:
            seconds = _seconds(blocking, timeout)
            return self._wait_for_notify(seconds if blocking else ZERO)
        taken = Lock.acquire(self, blocking, timeout)
        if taken:
            self._taker, self._awaited = me, False
        return taken

    cdef _wait_for_notify(self, timeout):
        waiter = _waiter_here()
        if not self._enlist(waiter, timeout is not None and <double>timeout == 0):
            return self._awaited is False
        # No checkpoint here: see the Python class.
        return _park_in(self._queue, waiter, timeout, "Condition.wait", self) is not TIMED_OUT

    cdef bint _enlist(self, waiter, bint only_looks) except -1:
        """Queue `waiter`; return false if it need not wait: it has been notified, or `only_looks`."""
        if self._take():
            self._awaited = False
            return False
        if not only_looks:
            # May run a finalizer, which may notify: until `_awaited` is set, that frees the lock.
            self._made_queue().add(waiter)
            if self._take():
                self._queue.withdraw(waiter)
                self._awaited = False
                return False
        self._awaited = True
        return not only_looks

    def __enter__(self):
        return self.acquire()

    def __exit__(self, kind, error, traceback):
        self.release()

    cdef bint _notify(self) except -1:
        """Notify the waiter, or free the lock; return false if the waiter has given up or the lock is free."""
        if not self._awaited or self._taker == _ident_here():
            if not self._taken:
                return False
            self._awaited, self._taker = False, 0
            self._release()
            return True
        return self._queue is not None and self._queue.unpark_one()

    @cython.binding(True)
    def release(self):
        if not self._taken:
            raise RuntimeError("release unlocked lock")
        if not self._notify():
            raise RuntimeError("release of a lock whose waiter was cancelled or timed out")
