# The fair queue of parked threads, and parking in it.


@cython.freelist(64)
cdef class _Place:
    """A node of the linked list: a waiter and its two neighbours."""

    cdef object waiter
    cdef _Place before, behind


cdef class _Withdrawal:
    """The undo function of a wait in a queue."""

    cdef WaitQueue _queue
    cdef object _waiter

    def __call__(self):
        return self._queue.withdraw(self._waiter)


cdef class WaitQueue(Withdrawable):
    """Waiters in the order in which they queued: a linked list of places, and a dict from waiter to place."""

    # Created for the second waiter, because most queues never have one.
    cdef dict _places
    cdef _Place _first, _last

    def __len__(self):
        return len(self._places) if self._places is not None else self._first is not None

    def __contains__(self, waiter):
        return self._place_of(waiter) is not None

    cdef _Place _place_of(self, waiter):
        if self._places is not None:
            return self._places.get(waiter)
        return self._first if self._first is not None and self._first.waiter is waiter else None

    cpdef add(self, waiter):
        cdef _Place place = _Place.__new__(_Place)
        cdef dict places = None
        place.waiter = waiter
        while self._places is None and self._first is not None:
            if places is None:
                # This may run a finalizer, which may add waiters too.
                places = {}
            else:
                self._places = places
                places[self._first.waiter] = self._first
        if self._places is not None and self._places.setdefault(waiter, place) is not place:
            # The waiter is still queued, because a signal handler ended its last wait.
            return
        place.before = self._last
        if self._last is None:
            self._first = place
        else:
            self._last.behind = place
        self._last = place

    cpdef bint withdraw(self, waiter) except -1:
        """Remove `waiter`. False means that another caller has removed it, and its wake-up is already posted."""
        cdef _Place place
        if self._places is None:
            place = self._place_of(waiter)
        else:
            place = self._places.pop(waiter, None)
        if place is None:
            return False
        if place.before is None:
            self._first = place.behind
        else:
            place.before.behind = place.behind
        if place.behind is None:
            self._last = place.before
        else:
            place.behind.before = place.before
        place.before = place.behind = None
        return True

    cpdef park(self, waiter, timeout=None):
        """Park `waiter`, which is queued here. Return the value of `_unpark`, or TIMED_OUT. May raise Cancelled."""
        cdef _Withdrawal withdrawal
        cdef Fiber fiber
        cdef double deadline
        if isinstance(waiter, Fiber):
            fiber = <Fiber>waiter
            # Read the clock before the check: it may be Python code, during which an interrupt may arrive.
            deadline = INF if timeout is None else fiber._scheduler.now() + <double>timeout
            if not fiber._pending:
                return fiber._park_until(self, deadline)
        withdrawal = _Withdrawal.__new__(_Withdrawal)
        withdrawal._queue, withdrawal._waiter = self, waiter
        return waiter._park(withdrawal, timeout)

    cpdef bint unpark_one(self, value=True) except -1:
        """Unpark the first waiter; return false if there is none."""
        while self._first is not None:
            waiter = self._first.waiter
            if not self.withdraw(waiter):
                continue
            if Fiber._unpark(<Fiber>waiter, value) if isinstance(waiter, Fiber) else waiter._unpark(value):
                return True
        return False

    def waiters(self):
        """Return the current waiters in no order, for inspection from any OS thread."""
        cdef _Place first = self._first
        if self._places is not None:
            return list(self._places)
        return [] if first is None else [first.waiter]

    def first(self):
        """Return the first waiter without removing it; None if there is none."""
        return None if self._first is None else self._first.waiter

    cpdef Py_ssize_t unpark_all(self, value=True) except -1:
        """Unpark the current waiters; return their number."""
        cdef Py_ssize_t unparked = 0
        for _ in range(len(self)):
            unparked += self.unpark_one(value)
        return unparked

    def forget_all(self):
        """Drop all waiters, in the child of a fork: their threads do not exist here."""
        self._places = self._first = self._last = None


cdef object _waiter_here():
    cdef Fiber fiber = _here()
    if fiber is None or fiber._has_begun_to_wait:
        return readable_parts["vthreads._core.wait_queue.waiter_here"]()
    return fiber


@cython.binding(True)
def waiter_here():
    cdef Fiber fiber = _here()
    if fiber is None or fiber._has_begun_to_wait:
        return readable_parts["vthreads._core.wait_queue.waiter_here"]()
    fiber._has_begun_to_wait = True
    return fiber


cdef object _park_in(WaitQueue queue, waiter, timeout, str name, of):
    """Park a waiter of `queue`; while it is parked, dumps show the call `name` and the object `of`."""
    cdef Fiber fiber
    cdef double deadline
    if not isinstance(waiter, Fiber):
        return queue.park(waiter, timeout)
    fiber = <Fiber>waiter
    # Read the clock before the check: it may be Python code, during which an interrupt may arrive.
    deadline = INF if timeout is None else fiber._scheduler.now() + <double>timeout
    fiber._waits_in, fiber._waits_on = name, of
    if not fiber._pending:
        answer = fiber._stay(queue, deadline)
        if answer is ABORTED:
            fiber._raise_aborted()
        return answer
    try:
        return queue.park(fiber, timeout)
    finally:
        fiber._waits_in = fiber._waits_on = None
