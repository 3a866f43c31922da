# Methods of the standard library's conditions, semaphores, events and queues.
#
# Each one does the same as the method of the standard library under the rule of `guards.py`, on a virtual thread, for
# an object whose lock is a plain `StandardLock` that is free, and whose other parts are the original ones. In every
# other case it calls that method before it has changed anything.

from collections import deque

# The methods under their rules, by class and name.
cdef dict readable_methods = {}
# Supplied by the readable code. The `Plain...` are the functions of the standard library.
cdef object Condition = None, StandardLock = None, StandardRLock = None
cdef object PlainIsOwned = None, PlainReleaseSave = None
cdef object PlainRLock = None, PlainNew = object.__new__
# The namespace of `threading`, in which programs replace classes.
cdef dict names_of_threading = {}
cdef object StandardFuture = None, PlainInvokeCallbacks = None
cdef object PlainSize = None, PlainPut = None, PlainGet = None
cdef bint queues_shut_down = False

cdef object new_rlock = RLock.__new__, remove_first = deque.popleft, append_last = deque.append


def set_condition_names(
    *, condition, lock, rlock, namespace, make_rlock, is_owned, release_save, size, put, get, shut_down,
    future, invoke_callbacks
):
    global Condition, StandardLock, StandardRLock, StandardFuture, PlainIsOwned, PlainReleaseSave
    global PlainRLock, PlainInvokeCallbacks, names_of_threading
    global PlainSize, PlainPut, PlainGet, queues_shut_down
    Condition, StandardLock, StandardRLock = condition, lock, rlock
    PlainIsOwned, PlainReleaseSave = is_owned, release_save
    StandardFuture, PlainInvokeCallbacks = future, invoke_callbacks
    names_of_threading, PlainRLock = namespace, make_rlock
    PlainSize, PlainPut, PlainGet, queues_shut_down = size, put, get, shut_down


def quick_condition_call(name, readable):
    """The compiled version of a method, which calls `readable` in uncommon cases; see the contract."""
    readable_methods[name] = readable
    if name not in QUICK:
        return readable
    quick = QUICK[name]
    _name_after(readable, quick)
    return quick


# --- conditions


@cython.binding(True)
def condition_init(self, lock=None):
    cdef dict found = names_of_threading
    if lock is None and found["RLock"] is PlainRLock and found["_CRLock"] is StandardRLock:
        # Without `__init__`, which only accepts the arguments of the original, and changes nothing.
        lock = new_rlock(StandardRLock)
    if _is_standard(lock):
        _init_condition(self, lock)
    else:
        readable_methods["Condition.__init__"](self, lock)


cdef int _init_condition(condition, lock) except -1:
    condition._lock = lock
    condition.acquire = lock.acquire
    condition.release = lock.release
    # A lock of the other kind has no such methods.
    if type(lock) is StandardRLock:
        condition._release_save = lock._release_save
        condition._acquire_restore = lock._acquire_restore
        condition._is_owned = lock._is_owned
    condition._waiters = deque()
    return 0


@cython.binding(True)
def condition_enter(self):
    lock = self._lock
    if type(lock) is StandardRLock and (<RLock>lock)._is_plain:
        return (<RLock>lock)._acquire(None, True)
    return lock.__enter__()


@cython.binding(True)
def condition_exit(self, *args):
    lock = self._lock
    if type(lock) is StandardRLock and (<RLock>lock)._is_plain:
        (<RLock>lock)._release()
        return None
    return lock.__exit__(*args)


cdef Lock _plain_lock(condition):
    """Return the lock of a condition if `with condition` only acquires and releases it, and it is plain; else None."""
    if type(condition) is not Condition or not vt_class_has(Condition, "__enter__", condition_enter):
        return None
    if not vt_class_has(Condition, "__exit__", condition_exit):
        return None
    lock = condition._lock
    return <Lock>lock if type(lock) is StandardLock and (<Lock>lock)._is_plain else None


cdef bint _owns(condition, lock) except -1:
    """`condition._is_owned()`, for a condition with this lock."""
    if vt_is_method(condition, "_is_owned", PlainIsOwned):
        if type(lock) is StandardLock and (<Lock>lock)._is_plain:
            return (<Lock>lock)._taken
    return condition._is_owned()


cdef bint _waits_plainly(condition) except -1:
    """Return whether `wait` of a condition of `_plain_lock` calls nothing that a program has replaced."""
    return (
        vt_is_method(condition, "_is_owned", PlainIsOwned)
        and vt_is_method(condition, "_release_save", PlainReleaseSave)
        and vt_is_method(condition, "_acquire_restore", readable_methods.get("Condition._acquire_restore"))
        and type(condition._waiters) is deque
    )


cdef object _wait_in(condition, Lock lock, ThreadFields fiber, double deadline, str call, shown_object):
    """`Condition.wait`, after the checkpoint: whether it was notified, or the exception that ended the wait.

    `lock` is that of `_plain_lock` if `_waits_plainly`: then only the end of the wait can raise. It is None for any
    other condition. Dumps show `call` and `shown_object`. Without a `try` around the park, which would make a large frame
    on the C stack.
    """
    cdef ConditionWaiterLock waiter
    if not (condition._is_owned() if lock is None else lock._taken):
        raise RuntimeError("cannot wait on un-acquired lock")
    waiter = ConditionWaiterLock.__new__(ConditionWaiterLock)
    waiter._take()
    waiter._taker = fiber._thread_ident
    waiters = condition._waiters
    if type(waiters) is deque:
        append_last(waiters, waiter)
    else:
        waiters.append(waiter)
    saved = None
    if lock is None:
        saved = condition._release_save()
    else:
        lock._release()
    answer = _await_notify(waiter, fiber, deadline, call, shown_object)
    if lock is None or not lock._take():
        condition._acquire_restore(saved)
    if answer is not True:
        _remove(waiters, waiter)
    return answer


cdef object _await_notify(ConditionWaiterLock waiter, ThreadFields fiber, double deadline, str call, shown_object):
    if not waiter._enlist(fiber, False):
        return True
    if fiber._pending:
        return _await_pending(waiter, fiber, deadline)
    fiber._waits_in, fiber._waits_on = call, shown_object
    answer = fiber._stay(waiter._queue, deadline)
    if answer is ABORTED:
        return _aborted(fiber)
    return answer if isinstance(answer, BaseException) else answer is not TIMED_OUT


cdef object _await_pending(ConditionWaiterLock waiter, ThreadFields fiber, double deadline):
    try:
        timeout = max(0.0, deadline - fiber._scheduler.now()) if deadline < INF else None
        return waiter._queue.park(fiber, timeout) is not TIMED_OUT
    except BaseException as error:  # raised by the caller, when it holds the lock again
        return error


cdef object _aborted(ThreadFields fiber):
    try:
        fiber._raise_aborted()
    except BaseException as error:  # likewise
        return error


@cython.binding(True)
def condition_wait(self, timeout=None):
    cdef Fiber fiber = _here()
    cdef Lock lock
    cdef double span = INF if timeout is None else _span(timeout)
    if fiber is None or fiber._has_begun_to_wait or not 0 < span or timeout is not None and span > LONGEST_TIMEOUT:
        return readable_methods["Condition.wait"](self, timeout)
    Fiber._check(fiber)
    lock = _plain_lock(self)
    if lock is not None and not _waits_plainly(self):
        lock = None
    # Read the clock before anything is changed: it may be Python code, which may raise.
    answer = _wait_in(self, lock, <ThreadFields?>fiber, _deadline(fiber, span), "Condition.wait", self)
    if isinstance(answer, BaseException):
        raise answer
    return answer


@cython.binding(True)
def condition_notify(self, n=1):
    lock = self._lock
    waiters = self._waiters
    # A plain lock and the locks of the waiters raise no cancellation here, so delivery need not be deferred.
    if vt_here is NULL or type(n) is not int or not _is_standard(lock) or type(waiters) is not deque:
        return readable_methods["Condition.notify"](self, n)
    if not _owns(self, lock):
        raise RuntimeError("cannot notify on un-acquired lock")
    while waiters and n > 0:
        waiter = waiters[0]
        if type(waiter) is not ConditionWaiterLock:
            return readable_methods["Condition.notify"](self, n)
        if (<ConditionWaiterLock>waiter)._notify():
            n -= 1
        # An observer may have run in the notify, and have changed the waiters.
        if waiters and waiters[0] is waiter:
            remove_first(waiters)
        else:
            _remove(waiters, waiter)


cdef inline bint _is_standard(lock):
    return type(lock) is StandardLock or type(lock) is StandardRLock


cdef int _remove(waiters, waiter) except -1:
    try:
        waiters.remove(waiter)
    except ValueError:
        pass
    return 0


cdef int _notify_one(condition, Lock held) except -1:
    """`condition.notify()` of a condition whose lock should be `held`."""
    if condition._lock is not held or not vt_is_method(condition, "notify", condition_notify):
        condition.notify()
        return 0
    return _notify_plainly(condition)


cdef int _notify_plainly(condition) except -1:
    """`condition.notify()` of a condition whose `notify` is the original one."""
    if condition._waiters or not vt_is_method(condition, "_is_owned", PlainIsOwned):
        condition_notify(condition)
    return 0


# --- semaphores


@cython.binding(True)
def semaphore_acquire(self, blocking=True, timeout=None):
    cdef Fiber fiber = _here()
    cdef Lock lock = None
    cdef bint only_tries = timeout is not None and _span(timeout) == 0
    if fiber is not None and blocking is True and not fiber._has_begun_to_wait:
        if timeout is None or only_tries:
            condition = self._cond
            lock = _plain_lock(condition)
    if lock is None:
        return readable_methods["Semaphore.acquire"](self, blocking, timeout)
    Fiber._check(fiber)
    if not lock._take():
        return readable_methods["Semaphore.acquire"](self, blocking, timeout)
    while not _take_permit(self, lock):
        if only_tries:
            lock._release()
            return False
        answer = _wait_while(condition, lock, <ThreadFields?>fiber, (None,), "Semaphore.acquire", self)
        if isinstance(answer, BaseException):
            lock._release()
            raise answer
    return True


cdef bint _take_permit(semaphore, Lock lock) except -1:
    """Take a permit and free the lock; return false, with the lock, if there is none."""
    cdef bint keeps = False
    try:
        value = semaphore._value
        keeps = value == 0
        if not keeps:
            semaphore._value = value - 1
    finally:
        if not keeps:
            lock._release()
    return not keeps


cdef object _wait_while(condition, Lock lock, ThreadFields fiber, tuple arguments, str call, shown_object):
    """`condition.wait(*arguments)` without a timeout: its result, or the exception that ended the wait."""
    if not fiber._pending and vt_is_method(condition, "wait", condition_wait) and _waits_plainly(condition):
        return _wait_in(condition, lock, fiber, INF, call, shown_object)
    return _wait_readably(condition.wait, arguments)


cdef object _wait_readably(method, tuple arguments):
    """Call a `wait` that may be any function: its result, or the exception that it raised."""
    try:
        return method(*arguments)
    except BaseException as error:  # raised by the caller, when it has released the lock
        return error


@cython.binding(True)
def semaphore_release(self, n=1):
    cdef Lock lock = None
    if vt_here is not NULL and n is ONE:
        condition = self._cond
        lock = _plain_lock(condition)
    # Another `notify` may have checkpoints, which the rule defers.
    if lock is None or not vt_is_method(condition, "notify", condition_notify) or not lock._take():
        return readable_methods["Semaphore.release"](self, n)
    try:
        self._value += 1
        _notify_plainly(condition)
    finally:
        lock._release()


# --- events


@cython.binding(True)
def event_init(self):
    if names_of_threading["Condition"] is not Condition or names_of_threading["Lock"] is not StandardLock:
        readable_methods["Event.__init__"](self)
        return
    if vt_class_has(Condition, "__init__", condition_init) and vt_class_has(Condition, "__new__", PlainNew):
        condition = PlainNew(Condition)
        _init_condition(condition, StandardLock())
    else:
        condition = Condition(StandardLock())
    self._cond = condition
    self._flag = False


@cython.binding(True)
def event_set(self):
    cdef Lock lock = None
    if vt_here is not NULL:
        condition = self._cond
        lock = _plain_lock(condition)
    if lock is None or not vt_is_method(condition, "notify_all", condition_notify_all) or not lock._take():
        return readable_methods["Event.set"](self)
    try:
        self._flag = True
        if condition._waiters or not _notifies_nobody(condition):
            condition_notify_all(condition)
    finally:
        lock._release()


cdef bint _notifies_nobody(condition) except -1:
    """Return whether `notify_all` of a condition without waiters does nothing."""
    return vt_is_method(condition, "notify", condition_notify) and vt_is_method(condition, "_is_owned", PlainIsOwned)


@cython.binding(True)
def condition_notify_all(self):
    cdef Fiber fiber = _here()
    if fiber is None:
        return readable_methods["Condition.notify_all"](self)
    (<ThreadFields?>fiber)._deferred += 1
    try:
        self.notify(len(self._waiters))
    finally:
        (<ThreadFields>fiber)._deferred -= 1


@cython.binding(True)
def event_wait(self, timeout=None):
    cdef Fiber fiber = _here()
    cdef Lock lock = None
    cdef double span = INF if timeout is None else _span(timeout), deadline
    if fiber is not None and not fiber._has_begun_to_wait and 0 < span and (timeout is None or span <= LONGEST_TIMEOUT):
        condition = self._cond
        lock = _plain_lock(condition)
    if lock is None:
        return readable_methods["Event.wait"](self, timeout)
    Fiber._check(fiber)
    # Before the lock is held: the clock may be Python code, which may raise.
    deadline = _deadline(fiber, span)
    if not lock._take():
        return readable_methods["Event.wait"](self, timeout)
    answer = _flag_of(self, lock)
    if answer:
        return answer
    if vt_is_method(condition, "wait", condition_wait) and _waits_plainly(condition):
        answer = _wait_in(condition, lock, <ThreadFields?>fiber, deadline, "Event.wait", self)
    else:
        answer = _wait_readably(condition.wait, (timeout,))
    lock._release()
    if isinstance(answer, BaseException):
        raise answer
    return answer


cdef object _flag_of(event, Lock lock):
    """Return the flag of an event, and free the lock if it is set."""
    cdef bint keeps = False
    try:
        flag = event._flag
        keeps = not flag
    finally:
        if not keeps:
            lock._release()
    return flag


# --- futures


cdef bint _is_alone(future) except -1:
    """Return whether no thread waits for a future or holds its lock, and nothing is called at its end."""
    if type(future) is not StandardFuture:
        return False
    condition = future._condition
    if type(condition) is not Condition:
        return False
    lock = condition._lock
    if type(lock) is not StandardRLock or not (<RLock>lock)._is_plain or (<RLock>lock)._count:
        return False
    return not (condition._waiters or future._waiters or future._done_callbacks)


@cython.binding(True)
def future_set_running(self):
    if vt_here is NULL or not _is_alone(self) or self._state != "PENDING":
        return readable_methods["Future.set_running_or_notify_cancel"](self)
    self._state = "RUNNING"
    return True


@cython.binding(True)
def future_set_result(self, result):
    if vt_here is NULL or not _is_alone(self) or self._state != "RUNNING" or not _ends_plainly(self):
        return readable_methods["Future.set_result"](self, result)
    self._result = result
    self._state = "FINISHED"


cdef bint _ends_plainly(future) except -1:
    """Return whether what a future calls at its end does nothing."""
    return vt_is_method(future._condition, "notify_all", condition_notify_all) and vt_is_method(
        future, "_invoke_callbacks", PlainInvokeCallbacks
    )


@cython.binding(True)
def standard_result(self, timeout=None):
    cdef Fiber fiber = _here()
    if fiber is None or not _is_alone(self):
        return readable_methods["Future.result"](self, timeout)
    Fiber._check(fiber)
    if self._state != "FINISHED" or self._exception is not None:
        return readable_methods["Future.result"](self, timeout)
    return self._result


@cython.binding(True)
def future_cancel(self):
    # In another state the call does more: it cancels the future, and notifies those that wait for it.
    if vt_here is NULL or not _is_alone(self) or self._state not in ("RUNNING", "FINISHED"):
        return readable_methods["Future.cancel"](self)
    return False


cdef dict QUICK = {
    "Condition.__init__": condition_init,
    "Condition.wait": condition_wait,
    "Condition.notify": condition_notify,
    "Condition.notify_all": condition_notify_all,
    "Condition.__enter__": condition_enter,
    "Condition.__exit__": condition_exit,
    "Semaphore.acquire": semaphore_acquire,
    "Semaphore.__enter__": semaphore_acquire,
    "Semaphore.release": semaphore_release,
    "Event.__init__": event_init,
    "Event.set": event_set,
    "Event.wait": event_wait,
    "Future.set_running_or_notify_cancel": future_set_running,
    "Future.set_result": future_set_result,
    "Future.cancel": future_cancel,
    "Future.result": standard_result,
}
