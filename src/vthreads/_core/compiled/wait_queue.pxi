# The fair queue of parked threads, and parking in it.


@cython.freelist(64)
cdef class _Place:
    """A node of the linked list: a waiter and its two neighbours."""

    cdef object waiter
    # None if the place is in the dict of the queue.
    cdef WaitQueue queue
    cdef _Place before, behind


cdef class _Withdrawal:
    """The undo function of a wait in a queue."""

    cdef WaitQueue _queue
    cdef object _waiter

    def __call__(self):
        return self._queue.withdraw(self._waiter)


cdef class WaitQueue(Withdrawable):
    """Waiters in the order in which they queued: a linked list of places.

    To withdraw a waiter, the queue must find its place. A fiber nearly always waits in one queue only, so it refers to
    its place. A dict would take 60 bytes more per fiber. Other waiters, and fibers that have a place elsewhere, are in
    a dict.
    """

    cdef Py_ssize_t _number
    cdef dict _others
    cdef _Place _first, _last

    def __len__(self):
        return self._number

    def __contains__(self, waiter):
        return self._place_of(waiter) is not None

    cdef _Place _place_of(self, waiter):
        if isinstance(waiter, Fiber):
            place = (<Fiber>waiter)._place
            if place is not None and (<_Place>place).queue is self:
                return <_Place>place
        return None if self._others is None else self._others.get(waiter)

    cpdef add(self, waiter):
        cdef _Place place = _Place.__new__(_Place)
        cdef bint is_fiber = isinstance(waiter, Fiber)
        if self._others is None and not (is_fiber and (<Fiber>waiter)._place is None):
            others = {}
            # The two allocations may run a finalizer, which may add waiters too. No other code runs after them.
            if self._others is None:
                self._others = others
        if self._place_of(waiter) is not None:
            # The waiter is still queued, because a signal handler ended its last wait.
            return
        if is_fiber and (<Fiber>waiter)._place is None:
            place.queue = self
            (<Fiber>waiter)._place = place
        else:
            self._others[waiter] = place
        place.waiter = waiter
        place.before = self._last
        if self._last is None:
            self._first = place
        else:
            self._last.behind = place
        self._last = place
        self._number += 1

    cpdef bint withdraw(self, waiter) except -1:
        """Remove `waiter`. False: another caller has removed and unparked it."""
        cdef _Place place = self._place_of(waiter)
        if place is None:
            return False
        if place.queue is None:
            del self._others[waiter]
        else:
            (<Fiber>waiter)._place = place.queue = None
        if place.before is None:
            self._first = place.behind
        else:
            place.before.behind = place.behind
        if place.behind is None:
            self._last = place.before
        else:
            place.behind.before = place.before
        place.before = place.behind = None
        self._number -= 1
        return True

    def park(self, waiter, timeout=None):
        """Park `waiter`, which is queued here. Return the value of `_unpark`, or TIMED_OUT. May raise Cancelled."""
        return self._park_waiter(waiter, timeout)

    cdef object _park_waiter(self, waiter, timeout):
        cdef double deadline
        if not isinstance(waiter, Fiber):
            return self._park_by_method(waiter, timeout)
        # Read the clock before the check: it may be Python code, during which an interrupt may arrive.
        deadline = INF if timeout is None else (<Fiber>waiter)._scheduler.now() + <double>timeout
        if (<Fiber>waiter)._pending:
            return self._park_by_method(waiter, timeout)
        return (<Fiber>waiter)._park_until(self, deadline)

    cdef object _park_by_method(self, waiter, timeout):
        cdef _Withdrawal withdrawal = _Withdrawal.__new__(_Withdrawal)
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
        cdef _Place place
        cdef list found = []
        # Creating the list may have run a finalizer, which may have changed the queue. No other code runs from here on.
        place = self._first
        while place is not None:
            found.append(place.waiter)
            place = place.behind
        return found

    def first(self):
        """Return the first waiter without removing it; None if there is none."""
        return None if self._first is None else self._first.waiter

    cpdef Py_ssize_t unpark_all(self, value=True) except -1:
        """Unpark the current waiters; return their number."""
        cdef Py_ssize_t unparked = 0
        for _ in range(self._number):
            unparked += self.unpark_one(value)
        return unparked

    def forget_all(self):
        """Drop all waiters, in the child of a fork: their threads do not exist here."""
        cdef _Place place = self._first
        while place is not None:
            if place.queue is not None:
                (<Fiber>place.waiter)._place = place.queue = None
            place = place.behind
        self._others = self._first = self._last = None
        self._number = 0


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


cdef object _park_in(WaitQueue queue, waiter, timeout, str call, shown_object):
    """Park a waiter of `queue`; while it is parked, dumps show `call` and `shown_object`."""
    cdef Fiber fiber
    cdef double deadline
    if not isinstance(waiter, Fiber):
        return queue._park_waiter(waiter, timeout)
    fiber = <Fiber>waiter
    # Read the clock before the check: it may be Python code, during which an interrupt may arrive.
    deadline = INF if timeout is None else fiber._scheduler.now() + <double>timeout
    fiber._waits_in, fiber._waits_on = call, shown_object
    if not fiber._pending:
        answer = fiber._stay(queue, deadline)
        if answer is ABORTED:
            fiber._raise_aborted()
        return answer
    try:
        return queue._park_waiter(fiber, timeout)
    finally:
        fiber._waits_in = fiber._waits_on = None
