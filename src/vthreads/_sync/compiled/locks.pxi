# Lock and RLock.

from weakref import ref

# Supplied by the readable code.
cdef object lock_statistics = None, deferred_delivery = None, check_contended = None, plain_lock = None


def set_lock_names(*, statistics, deferred, check, plain):
    global lock_statistics, deferred_delivery, check_contended, plain_lock
    lock_statistics, deferred_delivery, check_contended, plain_lock = statistics, deferred, check, plain


# Repeats `acquire_timeout`.
cdef object _seconds(blocking, timeout):
    """Return the arguments of `acquire` as seconds, or None for no limit. Works until the end of the interpreter."""
    cdef double seconds
    # The default is handled without Python calls: at the end of the interpreter a module that they need may be gone.
    if timeout is MINUS_ONE:
        return None
    if timeout is None:
        raise TypeError("timeout=None: a lock takes seconds, or -1 for no limit")
    seconds = _checked(timeout)
    if seconds == -1:
        return None
    if not blocking:
        raise ValueError("can't specify a timeout for a non-blocking call")
    if seconds < 0:
        raise ValueError("timeout value must be a non-negative number")
    if seconds > LONGEST_TIMEOUT:
        raise OverflowError("timeout value is too large")
    return seconds


# Repeats `refuse_as_original`.
cdef inline int _refuse_as_original(blocking, timeout) except -1:
    is_number = type(timeout) is int or type(timeout) is float
    if type(blocking) is not bool or not is_number or -1 != timeout < 0 or timeout > LONGEST_TIMEOUT:
        plain_lock().acquire(blocking, timeout)
    return 0


cdef inline Py_ssize_t _length(WaitQueue queue):
    return 0 if queue is None else len(queue)


# Repeats `holder_here`.
cdef inline size_t _holder_here() noexcept:
    """Return a number for the running virtual thread, or for the OS thread if there is none; see `Lock._holder`."""
    if vt_here is NULL:
        return PyThread_get_thread_ident()
    return <size_t><void *>(<Scheduler>vt_here).running


cdef class Lock:
    """Like `threading.Lock`, but fair. Any thread may release it. See the Python class of this name.

    No other Python code can run between a check of its state and the change. The Python class needs a lock of the
    operating system for that.
    """

    cdef bint _taken, _checks, _is_plain
    cdef public bint _is_listed, _in_block
    cdef readonly size_t _holder
    # Made for the first waiter.
    cdef WaitQueue _queue
    cdef object __weakref__

    _always_checks = True

    def __cinit__(self, *_, **__):
        self._checks = vt_class_has(type(self), "_always_checks", True)
        # Whether no subclass overrides these methods.
        kind = type(self)
        self._is_plain = vt_class_has(kind, "acquire", acquire_lock) and vt_class_has(kind, "release", release_lock)

    @property
    def _waiting(self):
        return self._made_queue()

    cdef WaitQueue _made_queue(self):
        cdef WaitQueue queue
        if self._queue is None:
            queue = WaitQueue.__new__(WaitQueue)
            # The allocation may have run a finalizer that has waited, and so has made the queue.
            if self._queue is None:
                self._queue = queue
        return self._queue

    def __init__(self):
        pass

    def __reduce__(self):
        refuse_copy(self)

    def __repr__(self):
        return f"<{type(self).__name__} {'locked' if self.locked() else 'unlocked'} waiting={_length(self._queue)}>"

    cdef bint _acquire(self) except -1:
        cdef Fiber fiber
        if self._checks:
            fiber = _here()
            if fiber is not None:
                Fiber._check(fiber)
        if not self._taken:
            self._taken = True
            self._holder = _holder_here()
            return True
        return self._wait(None)

    @cython.binding(True)
    def acquire(self, blocking=True, timeout=-1):
        if blocking is True and timeout is MINUS_ONE:
            return self._acquire()
        if not self._checks:
            _refuse_as_original(blocking, timeout)
        seconds = _seconds(blocking, timeout)
        waits = blocking and seconds != 0
        if waits and self._checks:
            _check()
        return self._take() or bool(waits and self._wait(seconds))

    cpdef bint _take(self):
        """Acquire the lock if it is free."""
        if self._taken:
            return False
        self._taken = True
        self._holder = _holder_here()
        return True

    # Repeats `list_contended`.
    cdef bint _wait(self, timeout) except -1:
        if not self._checks:
            _check()
        waiter = _waiter_here()
        self._made_queue()
        # Allocate before queueing, since that may run finalizers: no foreign code may run from queueing to parking.
        if timeout is None and not self._is_listed:
            self._is_listed = True
            contended.append(ref(self))
        if not isinstance(waiter, Fiber):
            outer = waiter.outer
            if outer is not None and self._queue.withdraw(outer):
                return self._wait_before(outer, timeout)
        self._queue.add(waiter)
        if self._take():
            # A finalizer released it. Only the thread that holds the lock removes waiters, so this one is still queued.
            self._queue.withdraw(waiter)
            return True
        if timeout is None and not isinstance(waiter, Fiber):
            check_contended()
        if _park_in(self._queue, waiter, timeout, "Lock.acquire", self) is TIMED_OUT:
            return False
        self._holder = _holder_here()
        return True

    cdef bint _wait_before(self, outer, timeout) except -1:
        """Wait inside the wait `outer` of the same thread; see the Python class."""
        try:
            return self._wait(timeout)
        finally:
            self._queue.add(outer)
            if self._take():
                self._release()

    cdef int _release(self) except -1:
        if not self._taken:
            raise RuntimeError("release unlocked lock")
        self._holder = 0
        self._in_block = False
        while self._queue is None or not self._queue.unpark_one():
            self._taken = False
            # A thread that queued between the check and this release found the lock taken. Acquire and hand over.
            if self._queue is None or self._queue._first is None or not self._take():
                return 0
            self._holder = 0
        return 0

    @cython.binding(True)
    def release(self):
        self._release()

    @cython.binding(True)
    def locked(self):
        return self._taken

    def __enter__(self):
        taken = self._acquire() if self._is_plain else self.acquire()
        self._in_block = taken
        return taken

    def __exit__(self, kind=None, error=None, traceback=None):
        if self._is_plain:
            self._release()
        else:
            self.release()

    @cython.binding(True)
    def statistics(self):
        return lock_statistics(self.locked(), None, _length(self._queue))

    def _at_fork_reinit(self):
        """Reset to free, in the child of a fork: the thread that held it may not exist here."""
        self._taken = self._in_block = False
        self._holder = 0
        if self._queue is not None:
            self._queue.forget_all()


cdef object acquire_lock = Lock.acquire, release_lock = Lock.release


# Repeats `current_ident`.
cdef inline unsigned long long _ident_here() except? 0:
    cdef Fiber fiber = _here()
    return PyThread_get_thread_ident() if fiber is None else (<ThreadFields?>fiber)._thread_ident


cdef class _HoldWanted:
    """A waiter for an RLock, with the owner and count that the lock gets when it is handed over."""

    cdef readonly object _waiter
    cdef unsigned long long _owner
    cdef int _count
    # Waits of the same thread for the same lock that began inside this wait; created on demand.
    cdef WaitQueue _within

    def _unpark(self, RLock lock):
        lock._owner, lock._count = self._owner, self._count
        if self._within is not None:
            self._within.unpark_all()
        return self._waiter._unpark(True)


cdef class _HoldWithdrawal:
    """The undo of a wait for an RLock."""

    cdef WaitQueue _queue
    cdef _HoldWanted _wanted

    def __call__(self):
        return self._queue.withdraw(self._wanted)


cdef class RLock:
    """Like `threading.RLock`, but fair: its owner, virtual or OS thread, may acquire it again. See the Python class."""

    cdef unsigned long long _owner
    cdef int _count
    cdef bint _checks, _is_plain
    cdef public bint _is_listed
    # The outermost wait of each owner; created on demand.
    cdef dict _wanted
    # Made for the first waiter.
    cdef WaitQueue _queue
    cdef object __weakref__

    _always_checks = True

    def __cinit__(self, *_, **__):
        self._checks = vt_class_has(type(self), "_always_checks", True)
        # Whether no subclass overrides these methods.
        kind = type(self)
        self._is_plain = vt_class_has(kind, "acquire", acquire_rlock) and vt_class_has(kind, "release", release_rlock)

    @property
    def _waiting(self):
        return self._made_queue()

    cdef WaitQueue _made_queue(self):
        """See `Lock`."""
        cdef WaitQueue queue
        if self._queue is None:
            queue = WaitQueue.__new__(WaitQueue)
            if self._queue is None:
                self._queue = queue
        return self._queue

    def __init__(self):
        pass

    def __reduce__(self):
        refuse_copy(self)

    def __repr__(self):
        state = f"locked owner={self._owner} count={self._count}" if self._count else "unlocked"
        return f"<{type(self).__name__} {state} waiting={_length(self._queue)}>"

    cpdef _held(self):
        """Return owner and count; two zeros while it is free."""
        return self._owner, self._count

    cdef bint _take(self, unsigned long long me, int count):
        if self._count:
            return False
        self._owner, self._count = me, count
        return True

    cdef bint _acquire(self, timeout, bint waits) except -1:
        cdef unsigned long long me
        if waits and self._checks:
            _check()
        me = _ident_here()
        if self._count and self._owner == me:
            self._count += 1
            return True
        return self._take(me, 1) or (waits and self._wait(me, 1, timeout))

    @cython.binding(True)
    def acquire(self, blocking=True, timeout=-1):
        if blocking is True and timeout is MINUS_ONE:
            return self._acquire(None, True)
        if not self._checks:
            _refuse_as_original(blocking, timeout)
        seconds = _seconds(blocking, timeout)
        return self._acquire(seconds, bool(blocking and seconds != 0))

    cdef bint _wait(self, unsigned long long me, int count, timeout) except -1:
        cdef _HoldWanted wanted
        if not self._checks:
            _check()
        self._made_queue()
        wanted = _HoldWanted.__new__(_HoldWanted)
        wanted._waiter, wanted._owner, wanted._count = _waiter_here(), me, count
        if self._wanted is None:
            self._wanted = {}
        outer = self._wanted.setdefault(me, wanted)
        if outer is not wanted and outer in self._queue:
            return self._wait_within(<_HoldWanted>outer, wanted._waiter, count, timeout)
        try:
            return self._wait_for(wanted, timeout)
        finally:
            if outer is wanted:
                del self._wanted[me]

    cdef bint _wait_within(self, _HoldWanted outer, waiter, int count, timeout) except -1:
        """Wait inside the wait `outer` of the same owner: the lock is handed over to both at once."""
        cdef WaitQueue within = WaitQueue.__new__(WaitQueue)
        if outer._within is None:
            outer._within = within
        outer._within.add(waiter)
        if not self._count or self._owner != outer._owner or not outer._within.withdraw(waiter):
            if outer._within.park(waiter, timeout) is TIMED_OUT:
                return False
        self._count += count
        return True

    # Repeats `list_contended`.
    cdef bint _wait_for(self, _HoldWanted wanted, timeout) except -1:
        cdef _HoldWithdrawal withdrawal = _HoldWithdrawal.__new__(_HoldWithdrawal)
        cdef Fiber fiber
        # Allocate before queueing, as in `Lock`.
        withdrawal._queue, withdrawal._wanted = self._queue, wanted
        if timeout is None and not self._is_listed:
            self._is_listed = True
            contended.append(ref(self))
        self._queue.add(wanted)
        if self._take(wanted._owner, wanted._count):
            # A finalizer freed it, or handed it over. In the second case the waiter is already unparked.
            return self._queue.withdraw(wanted) or bool(wanted._waiter._park_through())
        if self._count and self._owner == wanted._owner and self._queue.withdraw(wanted):
            # A finalizer handed the lock to the outer wait after the check.
            self._count += wanted._count
            return True
        if not isinstance(wanted._waiter, Fiber):
            if timeout is None:
                check_contended()
            return wanted._waiter._park(withdrawal, timeout) is not TIMED_OUT
        fiber = <Fiber>wanted._waiter
        fiber._waits_in, fiber._waits_on = "RLock.acquire", self
        try:
            return fiber._park(withdrawal, timeout) is not TIMED_OUT
        finally:
            fiber._waits_in = fiber._waits_on = None

    cdef int _release(self) except -1:
        if not self._count or self._owner != _ident_here():
            raise RuntimeError("cannot release un-acquired lock")
        if self._count > 1:
            self._count -= 1
            return 0
        return self._hand_on(self._owner)

    cdef int _hand_on(self, unsigned long long me) except -1:
        while self._queue is None or not self._queue.unpark_one(self):
            self._owner, self._count = 0, 0
            # A thread may have queued between the check and this. Own the lock again and hand it over.
            if self._queue is None or self._queue._first is None or not self._take(me, 1):
                return 0
        return 0

    @cython.binding(True)
    def release(self):
        self._release()

    def __enter__(self):
        return self._acquire(None, True) if self._is_plain else self.acquire()

    def __exit__(self, kind=None, error=None, traceback=None):
        if self._is_plain:
            self._release()
        else:
            self.release()

    @cython.binding(True)
    def locked(self):
        return self._count > 0

    @cython.binding(True)
    def statistics(self):
        owner = self._owner if self._count else None
        return lock_statistics(self._count > 0, owner, _length(self._queue))

    # The methods that `threading.Condition` and similar classes call on their lock.

    def _is_owned(self):
        return self._recursion_count() > 0

    def _recursion_count(self):
        return self._count if self._count and self._owner == _ident_here() else 0

    def _release_save(self):
        state = self._count, self._owner
        if not self._count:
            raise RuntimeError("cannot release un-acquired lock")
        self._hand_on(self._owner)
        return state

    def _acquire_restore(self, state):
        count, owner = state
        if self._take(owner, count):
            return
        with deferred_delivery():
            if not self._take(owner, count):
                self._wait(owner, count, None)

    def _at_fork_reinit(self):
        self._owner, self._count, self._wanted = 0, 0, None
        if self._queue is not None:
            self._queue.forget_all()


cdef object acquire_rlock = RLock.acquire, release_rlock = RLock.release
