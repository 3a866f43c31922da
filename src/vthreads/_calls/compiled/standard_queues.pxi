# `Queue.put` and `Queue.get` of the standard library, by the rules of `standard_conditions.pxi`.

cdef enum:
    PASSED = 1
    IS_SHUT_DOWN = 2


@cython.binding(True)
def standard_put(self, item, block=True, timeout=None):
    cdef Fiber fiber = _here()
    cdef Lock lock = None
    cdef int outcome
    cdef bint is_bounded
    if fiber is not None and block is True and timeout is None and not fiber._has_begun_to_wait:
        not_full = self.not_full
        lock = _plain_lock(not_full)
    if lock is None:
        return readable_methods["Queue.put"](self, item, block, timeout)
    is_bounded = self.maxsize > 0
    if is_bounded:
        Fiber._check(fiber)
    else:
        Fiber._give_way(fiber)
    # Read the size again: another thread may have run at the checkpoint, and have changed it.
    is_bounded = self.maxsize > 0
    if not lock._take():
        return readable_methods["Queue.put"](self, item)
    while True:
        outcome = _put_in(self, item, lock, <ThreadFields?>fiber, is_bounded)
        if outcome == PASSED:
            return None
        if outcome == IS_SHUT_DOWN:
            return readable_methods["Queue.put"](self, item)
        answer = _wait_while(not_full, lock, <ThreadFields>fiber, (), "Queue.put", self)
        if isinstance(answer, BaseException):
            lock._release()
            raise answer


cdef int _put_in(queue, item, Lock lock, ThreadFields fiber, bint is_bounded) except -1:
    """Put an item and free the lock; return 0, with the lock, if there is no room."""
    cdef bint keeps = False
    # An unbounded queue always has room, so that a cancelled thread can give back its items.
    cdef int deferred = 0 if is_bounded else 1
    fiber._deferred += deferred
    try:
        if queues_shut_down and queue.is_shutdown:
            return IS_SHUT_DOWN
        if is_bounded and _size_of(queue) >= queue.maxsize:
            keeps = True
            return 0
        if vt_is_method(queue, "_put", PlainPut) and type(items := queue.queue) is deque:
            append_last(items, item)
        else:
            queue._put(item)
        queue.unfinished_tasks += 1
        _notify_one(queue.not_empty, lock)
        return PASSED
    finally:
        fiber._deferred -= deferred
        if not keeps:
            lock._release()


@cython.binding(True)
def standard_get(self, block=True, timeout=None):
    cdef Fiber fiber = _here()
    cdef Lock lock = None
    if fiber is not None and block is True and timeout is None and not fiber._has_begun_to_wait:
        not_empty = self.not_empty
        lock = _plain_lock(not_empty)
    if lock is None:
        return readable_methods["Queue.get"](self, block, timeout)
    Fiber._check(fiber)
    if not lock._take():
        return readable_methods["Queue.get"](self)
    while True:
        item = _get_from(self, lock)
        if item is not NOTHING:
            return item
        if queues_shut_down and self.is_shutdown:
            lock._release()
            return readable_methods["Queue.get"](self)
        answer = _wait_while(not_empty, lock, <ThreadFields?>fiber, (), "Queue.get", self)
        if isinstance(answer, BaseException):
            lock._release()
            raise answer


cdef object _get_from(queue, Lock lock):
    """Get an item and free the lock; return NOTHING, with the lock, if there is none."""
    cdef bint keeps = False
    try:
        if not _size_of(queue):
            keeps = True
            return NOTHING
        if vt_is_method(queue, "_get", PlainGet) and type(items := queue.queue) is deque:
            item = remove_first(items)
        else:
            item = queue._get()
        _notify_one(queue.not_full, lock)
        return item
    finally:
        if not keeps:
            lock._release()


cdef inline object _size_of(queue):
    """`queue._qsize()`."""
    return len(queue.queue) if vt_is_method(queue, "_qsize", PlainSize) else queue._qsize()


QUICK.update({"Queue.put": standard_put, "Queue.get": standard_get})
