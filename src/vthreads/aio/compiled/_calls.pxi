# Calls of coroutines by virtual threads, on the loop of their own OS thread.

from contextvars import copy_context
from types import CoroutineType

# Supplied by the readable code.
cdef object AwaitCall = None, get_running_loop = None, set_waiting_thread = None, overdue_at_by = None
cdef dict guests_by_scheduler = None


def set_call_names(*, call_type, running_loop, guests, set_thread, overdue_at):
    global AwaitCall, get_running_loop, set_waiting_thread, guests_by_scheduler, overdue_at_by
    overdue_at_by = overdue_at
    AwaitCall, get_running_loop = call_type, running_loop
    guests_by_scheduler, set_waiting_thread = guests, set_thread


cdef class CallFields:
    cdef public object shared, value, error, _awaitable, _context, _task
    cdef public WaitQueue _waiting
    cdef public list _waiting_thread
    cdef public bint called_off, _is_over, _abandoned


# Repeats `_wait`, `refuse_in_coroutine`, `loop_for`, `AwaitCall.__init__`, `TaskCall.__init__` and `TaskCall.wait`.
@cython.binding(True)
def await_(awaitable):
    cdef CallFields call
    cdef ThreadFields thread = <ThreadFields>_here() if isinstance(_here(), ThreadFields) else None
    guest = None if thread is None else guests_by_scheduler.get(thread._scheduler)
    if (
        guest is None
        or not (<GuestFields>guest).is_lent
        or type(awaitable) is not CoroutineType
        or get_running_loop() is not None
        or thread._pending
        or vt_lacks_room(ROOM)
        or thread._scheduler.now() >= thread._scheduler.slice_end
    ):
        return readable_parts["vthreads.aio._calls.await_"](awaitable)
    call = <CallFields>vt_new(AwaitCall)
    call.shared, call._awaitable = guest, awaitable
    call._waiting = WaitQueue.__new__(WaitQueue)
    call._context = copy_context()
    if "decimal" in modules:
        _renew_decimal(call._context)
    # For `remaining`; see the readable code.
    call._waiting_thread = [thread]
    call._context.run(set_waiting_thread, call._waiting_thread)
    (<GuestFields>guest).waiting[call] = None
    return _wait_for(call, thread, <GuestFields>guest)


cdef object _wait_for(CallFields call, ThreadFields thread, GuestFields guest):
    interrupt = None
    try:
        guest._begin(call._start)
    except RuntimeError:
        guest.waiting.pop(call, None)
        raise
    if not call._is_over:
        interrupt = _wait_for_end(call, thread, guest)
    return call.value if interrupt is None and call.error is None else call._conclude(thread, interrupt)


# Repeats `TaskCall._wait_for_end` and `TaskCall._park_first`. This OS thread runs the loop too, so nothing ends the call
# between the check and the wait.
cdef object _wait_for_end(CallFields call, ThreadFields thread, GuestFields guest):
    raised = overdue_at = None
    if (
        thread._innermost._affected_by is None
        and not thread._has_begun_to_wait
        and thread._scheduler.loop_calls is guest.waiting
    ):
        call._waiting.add(thread)
        try:
            _park_in(call._waiting, thread, None, "await_", None)
        except BaseException as error:  # raised by `_wait_for`, when the task has ended
            raised, overdue_at = error, overdue_at_by(thread, error)
        return None if raised is None else call._end_early(thread, raised, overdue_at, False)
    thread._waits_in = "await_"
    try:
        return call._wait_for_end(thread)
    finally:
        thread._waits_in = None


# Repeats `AwaitCall._start_here`.
@cython.binding(True)
def call_start(self):
    cdef CallFields call = <CallFields?>self
    if type(self) is not AwaitCall or call.called_off or call._is_over or not isinstance(call.shared, GuestFields):
        readable_parts["vthreads.aio._calls.TaskCall._start"](self)
        return
    try:
        coroutine = self._await()
        task = (<GuestFields>call.shared)._create_task(coroutine, call._context)
        if task is not None and not call._is_over:
            call._task = task
            if not coroutine.cr_suspended:
                task.add_done_callback(self._ended)
    except BaseException as error:  # raised in the virtual thread
        self.settle(None, error)


@cython.binding(True)
def call_settle(self, value, error):
    cdef CallFields call = <CallFields?>self
    cdef Section changing
    shared = call.shared
    if isinstance(shared, GuestFields):
        (<GuestFields>shared).waiting.pop(self, None)
        changing = (<GuestFields>shared).changing
    else:
        (<dict>shared.waiting).pop(self, None)
        changing = shared.changing
    if call._waiting_thread is not None:
        call._waiting_thread.clear()
    changing._enter()
    try:
        if call._is_over:
            return
        # The flag last: on another OS thread, `wait` reads it without the section, and then reads the outcome.
        call.value, call.error, call._is_over = value, error, True
    finally:
        changing._leave()
    if call._abandoned:
        call._report_late()
    if call._waiting._number:
        call._waiting.unpark_all()
