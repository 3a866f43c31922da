# Queues.

from collections import deque
from math import ceil
from sys import maxsize as ssize_max
from types import GenericAlias

from vthreads.errors import Empty, Full, ShutDown

# Supplied by the readable code.
cdef object queue_statistics = None, Refused = None, SHUT_DOWN = None


def set_queue_names(*, statistics, refused, shut_down):
    global queue_statistics, Refused, SHUT_DOWN
    queue_statistics, Refused, SHUT_DOWN = statistics, refused, shut_down


cdef class _Offer:
    """A waiting putter and its item. To unpark it, a getter passes the queue that stores the item."""

    cdef readonly object _item, _waiter

    def _unpark(self, answer):
        if not isinstance(answer, _Exchange):
            return self._waiter._unpark(answer)
        if self._waiter.state is ENDED:
            # Its thread did not survive a fork. The item stays in the parent.
            return False
        try:
            (<_Exchange>answer)._accept(self._item)
        except BaseException as error:  # raised in the putter, whose item it is
            self._waiter._unpark(Refused(error))
            # The item was not stored, so the room goes to the next putter.
            return False
        return self._waiter._unpark(True)


cdef class _OfferWithdrawal:
    """The undo of a wait for room."""

    cdef WaitQueue _queue
    cdef _Offer _offer

    def __call__(self):
        return self._queue.withdraw(self._offer)


cdef object _seconds_to_wait(block, timeout):
    """Return the seconds that a call may wait: None for no limit, 0 for none."""
    if not block:
        return ZERO
    if timeout is None:
        return None
    timeout = _checked(timeout)
    if <double>timeout < 0:
        raise ValueError("'timeout' must be a non-negative number")
    return timeout


cdef class _Exchange:
    """Common part of all queues: items, getters, putters. See the Python class of this name."""

    cdef public Py_ssize_t unfinished_tasks
    # The maximum size as the user passed it, and the same as a whole number; 0 or less: no limit.
    cdef object _maxsize
    cdef Py_ssize_t _limit
    cdef public object _items
    cdef public bint is_shutdown
    cdef readonly Section _changing
    cdef readonly WaitQueue _getting, _putting
    # Whether items are stored first in, first out, and whether they are counted.
    cdef bint _is_fifo, _counts
    cdef object __weakref__

    def __cinit__(self, *_, **__):
        kind = type(self)
        self._changing = Section.__new__(Section)
        self._getting = WaitQueue.__new__(WaitQueue)
        self._putting = WaitQueue.__new__(WaitQueue)
        self._is_fifo = kind._store is _Exchange._store and kind._take is _Exchange._take
        self._counts = kind._accepted is not _Exchange._accepted

    def __init__(self, maxsize=0):
        self.maxsize = maxsize
        self._items = self._new_items()

    def __reduce__(self):
        refuse_copy(self)

    @property
    def maxsize(self):
        return self._maxsize

    @maxsize.setter
    def maxsize(self, maxsize):
        # A size that exceeds the memory counts as no limit.
        self._limit = 0 if not 0 < maxsize < ssize_max else ceil(maxsize)
        self._maxsize = maxsize

    @classmethod
    def __class_getitem__(cls, item):
        return GenericAlias(cls, item)

    def __repr__(self):
        waiters = f"getters={len(self._getting)} putters={len(self._putting)}"
        return f"<{type(self).__name__} size={self.qsize()} maxsize={self.maxsize} {waiters}>"

    def _new_items(self):
        return deque()

    def _store(self, item):
        self._items.append(item)

    def _take(self):
        return self._items.popleft()

    def _accepted(self):
        """Count an item that was put."""

    cdef int _accept(self, item) except -1:
        """Pass `item` to the first waiting getter, or store it."""
        if self._getting._first is None or not self._getting.unpark_one(item):
            if self._is_fifo:
                self._items.append(item)
            else:
                self._store(item)
        if self._counts:
            self.unfinished_tasks += 1
        return 0

    cdef bint _has_room(self) except -1:
        return self._limit <= 0 or len(self._items) < self._limit

    cpdef _put(self, item, block, timeout):
        cdef object seconds = _seconds_to_wait(block, timeout)
        cdef bint waits = seconds is None or <double>seconds > 0, missed
        cdef Fiber fiber
        cdef _Offer offer
        if waits:
            fiber = _here()
            if fiber is not None:
                if self._limit > 0:
                    Fiber._check(fiber)
                else:
                    # An unbounded queue always has room, so a cancelled thread can return its items to it.
                    Fiber._give_way(fiber)
        self._changing._enter()
        try:
            if self.is_shutdown:
                raise ShutDown
            if self._has_room():
                self._accept(item)
                return None
            if not waits:
                raise Full
            offer = _Offer.__new__(_Offer)
            offer._item, offer._waiter = item, _waiter_here()
            self._putting.add(offer)
            missed = (self._has_room() or self.is_shutdown) and self._putting.withdraw(offer)
        finally:
            self._changing._leave()
        if missed:
            # A finalizer took an item or shut the queue down after the check and before this putter was queued.
            return self._put(item, block, timeout)
        return self._wait_for_room(offer, seconds)

    cdef _wait_for_room(self, _Offer offer, timeout):
        cdef _OfferWithdrawal withdrawal = _OfferWithdrawal.__new__(_OfferWithdrawal)
        cdef Fiber fiber = None
        withdrawal._queue, withdrawal._offer = self._putting, offer
        if isinstance(offer._waiter, Fiber):
            fiber = <Fiber>offer._waiter
            fiber._waits_in, fiber._waits_on = "Queue.put", self
        try:
            answer = offer._waiter._park(withdrawal, timeout)
        finally:
            if fiber is not None:
                fiber._waits_in = fiber._waits_on = None
        if answer is True:
            return None
        if answer is TIMED_OUT:
            raise Full
        if answer is SHUT_DOWN:
            raise ShutDown
        raise answer.error

    cpdef _get(self, block, timeout):
        cdef object seconds = _seconds_to_wait(block, timeout)
        cdef bint waits = seconds is None or <double>seconds > 0, missed
        cdef Fiber fiber = _here()
        if waits and fiber is not None:
            Fiber._check(fiber)
        self._changing._enter()
        try:
            if self._items:
                item = self._items.popleft() if self._is_fifo else self._take()
                if self._putting._first is not None:
                    self._putting.unpark_one(self)
                return item
            if self.is_shutdown:
                raise ShutDown
            if not waits:
                raise Empty
            waiter = _waiter_here()
            self._getting.add(waiter)
            missed = (self._items or self.is_shutdown) and self._getting.withdraw(waiter)
        finally:
            self._changing._leave()
        if missed:
            # A finalizer put an item or shut the queue down after the check and before this getter was queued.
            return self._get(block, timeout)
        answer = _park_in(self._getting, waiter, seconds, "Queue.get", self)
        if answer is TIMED_OUT:
            raise Empty
        if answer is SHUT_DOWN:
            raise ShutDown
        return answer

    @cython.binding(True)
    def qsize(self):
        return len(self._items)

    @cython.binding(True)
    def empty(self):
        return not self._items

    @cython.binding(True)
    def put_nowait(self, item):
        self._put(item, False, None)

    @cython.binding(True)
    def get_nowait(self):
        return self._get(False, None)

    def _waiting_to_join(self):
        return 0

    @cython.binding(True)
    def statistics(self):
        getters, putters, joiners = len(self._getting), len(self._putting), self._waiting_to_join()
        figures = queue_statistics
        return figures(self.qsize(), getters + putters + joiners, getters, putters, joiners)


@cython.binding(True)
def queue_put(self, item, block=True, timeout=None):
    if not isinstance(self, _Exchange):
        return readable_parts["vthreads._sync.queues.Queue.put"](self, item, block, timeout)
    return (<_Exchange>self)._put(item, block, timeout)


@cython.binding(True)
def queue_get(self, block=True, timeout=None):
    if not isinstance(self, _Exchange):
        return readable_parts["vthreads._sync.queues.Queue.get"](self, block, timeout)
    return (<_Exchange>self)._get(block, timeout)


@cython.binding(True)
def simple_put(self, item, block=True, timeout=None):
    if not isinstance(self, _Exchange):
        return readable_parts["vthreads._sync.queues.SimpleQueue.put"](self, item, block, timeout)
    return (<_Exchange>self)._put(item, False, None)


@cython.binding(True)
def simple_get(self, block=True, timeout=None):
    if not isinstance(self, _Exchange):
        return readable_parts["vthreads._sync.queues.SimpleQueue.get"](self, block, timeout)
    return (<_Exchange>self)._get(block, timeout)
