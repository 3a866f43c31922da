# The turns of an event loop that drives a carrier, and the tasks that begin in them.

# Supplied by the readable code.
cdef object turn_of_guest_under_way = None


def set_guest_names(*, turn_under_way):
    global turn_of_guest_under_way
    turn_of_guest_under_way = turn_under_way


cdef class GuestFields:
    cdef public Scheduler scheduler
    cdef public object loop, changing, thread
    cdef public bint is_own, ends, is_lent, _turn_follows
    cdef public dict waiting
    cdef public list _begun
    cdef public object _start_task, _current_task, _soon, _later

    cdef int _begin(self, function) except -1:
        if self.loop.get_debug():
            self.loop.call_soon_threadsafe(function)
        elif self.is_lent:
            self._begun.append(function)
            self.scheduler.call_host()
        else:
            function()
        return 0

    cdef object _call(self, function, tuple args):
        if self.loop.get_debug():
            return self.loop.call_soon_threadsafe(function, *args)
        return self.loop.call_soon(function, *args)

    cdef int _ask(self) except -1:
        if self._soon is None:
            if self.loop.is_closed():
                self.end()
            else:
                self._soon = self._call(self._turn, ())
        return 0

    cdef object _create_task(self, coroutine, context):
        loop = self.loop
        if running() is self.thread and loop.get_task_factory() is None and self._current_task(loop) is None:
            if type(self._start_task) is TaskStarter:
                task = (<TaskStarter>self._start_task)._start(coroutine, context)
            else:
                task = self._start_task(coroutine, context=context)
            if task is not None and not task.done() and task._fut_waiter is None:
                self._turn_follows = True
            return task
        return loop.create_task(coroutine, context=context)


@cython.binding(True)
def guest_begin(self, function):
    (<GuestFields?>self)._begin(function)


@cython.binding(True)
def guest_create_task(self, coroutine, context):
    return (<GuestFields?>self)._create_task(coroutine, context)


@cython.binding(True)
def guest_call(self, function, *args):
    return (<GuestFields?>self)._call(function, args)


@cython.binding(True)
def guest_call_soon(self):
    (<GuestFields?>self)._ask()


@cython.binding(True)
def guest_turn(self, polls=False):
    cdef GuestFields guest = <GuestFields?>self
    if guest._soon is not None:
        guest._soon.cancel()
    if guest._later is not None:
        guest._later.cancel()
    guest._later = None
    guest._soon = turn_of_guest_under_way
    if running() is not guest.thread:
        guest._soon = None
        return
    seconds = _lend_to_guest(guest, polls)
    guest._soon = None
    if guest._turn_follows or seconds == 0:
        guest._turn_follows = False
        guest._ask()
    elif seconds is not None:
        guest._later = guest.loop.call_later(seconds, guest._turn)


@cython.binding(True)
def guest_lend(self, polls):
    return _lend_to_guest(<GuestFields?>self, polls)


cdef object _lend_to_guest(GuestFields guest, bint polls):
    cdef bint goes_on = False
    cdef list begun
    while True:
        guest.is_lent = True
        try:
            seconds = _lend(guest.scheduler, goes_on, polls)
        finally:
            guest.is_lent = False
        if not guest._begun:
            return seconds
        begun, guest._begun = guest._begun, []
        for function in begun:
            function()
        if seconds is None or <double>seconds >= 0:
            return 0.0
        goes_on, polls = True, False
