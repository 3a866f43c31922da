# The fields of a group, the common spawn of a member, and its common end. The readable code handles all other cases.

from sys import modules

from vthreads._core.spawn_site import LONGEST_CHAIN as _LONGEST_CHAIN
from vthreads._core.spawn_site import SpawnSite

cdef int LONGEST_CHAIN = _LONGEST_CHAIN
# Supplied by the readable code.
cdef object ThreadGroup = None, VirtualThread = None, OPEN = None


cdef class GroupFields(Owner):
    cdef public object _body, _closed, _listeners, _permits, _phase, _scope
    cdef public dict _members
    cdef public EndedFutures _ended
    cdef public Section _changing
    cdef public WaitQueue _empty
    cdef public bint _spreads

    # Repeats `VirtualThread._end`, `VirtualThread._leave`, `Members._settle`, `Future._settle`, `Future._set`,
    # `CancelNode._detach`, `ThreadGroup._member_ended` and `Members._member_ended`. A member is only in the dict of its
    # owner, and so needs no detaching.
    cdef bint _end_quietly(self, ThreadFields thread, value) except -1:
        cdef FutureFields future
        if type(self) is not ThreadGroup or thread._innermost is not thread:
            return False
        if thread._children or thread._joiners is not None or self._permits is not None or self._spreads:
            return False
        if thread._locals is not None:
            # Their finalizers may run any code; `_end` expects that too.
            return False
        future = <FutureFields>thread._future
        thread._deferred += 1
        changing_futures._enter()
        if future._callbacks is not None or future._made_condition is not None:
            changing_futures._leave()
            thread._deferred -= 1
            return False
        future._result, future._state = value, FINISHED
        changing_futures._leave()
        if future._waiting is not None:
            (<WaitQueue>future._waiting).unpark_all()
        # Dropping it may run any code.
        Fiber._leave_context(thread)
        # The thread may have been cancelled or interrupted meanwhile: drop that, because nothing is delivered any more.
        thread._deliveries = thread._interrupts = thread._roused_by = None
        Fiber._retire(thread)
        self._changing._enter()
        try:
            del self._members[thread]
            self._ended.add(future)
            if self._listeners is not None:
                for listener in self._listeners:
                    listener.add(future)
        finally:
            self._changing._leave()
        if not self._members:
            self._empty.unpark_all()
        if thread._joiners is not None:
            thread._joiners.unpark_all()
        return True


# Repeats `check_function`, `ThreadGroup._spawn`, `Members._spawn`, `Members._admit`, `Members._add`, `Members._why_over`,
# `Members._launch`, `VirtualThread.__init__`, `Recipient._init_delivery`, `CancelNode._init_node`,
# `CancelNode._attach_member` and `Future.__init__`.
@cython.binding(True)
def spawn(self, fn, /, *args, **kwargs):
    cdef Scheduler scheduler
    cdef ThreadFields caller, thread
    cdef GroupFields group = <GroupFields>self if isinstance(self, GroupFields) else None
    if group is None or vt_here is NULL or not isinstance((<Scheduler>vt_here).running, ThreadFields):
        return readable_parts["vthreads._core.group.ThreadGroup.spawn"](self, fn, *args, **kwargs)
    if group._body is None or group._permits is not None or group._spreads:
        return readable_parts["vthreads._core.group.ThreadGroup.spawn"](self, fn, *args, **kwargs)
    if not vt_does_work(fn) and type(fn) is not CompiledFunction:
        check_function(fn, "spawn")
    scheduler = <Scheduler>vt_here
    caller = <ThreadFields>scheduler.running
    scope = group._scope
    if (
        (<Fiber>group._body)._scheduler is not scheduler
        or scheduler.when_forking is not None
        or group._phase is not OPEN
        or group._closed is not None
        or scope._affected_by is not None
    ):
        return readable_parts["vthreads._core.group.ThreadGroup.spawn"](self, fn, *args, **kwargs)
    sites = _sites_here(scheduler, caller)
    if sites is None:
        return readable_parts["vthreads._core.group.ThreadGroup.spawn"](self, fn, *args, **kwargs)
    thread = <ThreadFields>vt_new(VirtualThread)
    thread._scheduler = scheduler
    thread._context = vt_copy_context()
    if thread._context is not None and "decimal" in modules:
        _renew_decimal(thread._context)
    thread.group = self
    thread._function, thread._arguments, thread._keywords = fn, args, kwargs if kwargs else None
    thread._sites = sites
    thread._thread_ident = _next_ident()
    thread._innermost = thread
    thread._cleanup_ends_at = -INF
    thread._listens = True
    future = vt_new(Future)
    (<FutureFields>future).thread = thread
    (<FutureFields>future)._state = FUTURE_RUNNING
    thread._future = future
    group._changing._enter()
    # A finalizer or another OS thread may have ended the group while the thread was created. No other code runs from
    # this check to the start.
    if group._phase is not OPEN or group._closed is not None or scope._affected_by is not None:
        group._changing._leave()
        thread._future = None
        return readable_parts["vthreads._core.group.ThreadGroup.spawn"](self, fn, *args, **kwargs)
    group._members[thread] = None
    group._changing._leave()
    thread._parent = scope
    scheduler.start(thread)
    return future


# Repeats `caller_site` and `SpawnSite.__init__`.
cdef tuple _sites_here(Scheduler scheduler, ThreadFields caller):
    """Return the spawn sites of the calling code, innermost first; None if a frame of this package is in between."""
    cdef PyObject *code
    cdef PyObject *globals
    cdef int instruction
    if not vt_place(&code, &globals, &instruction):
        return None
    found, names = <object>code, <object>globals
    Py_DECREF(found)
    Py_DECREF(names)
    if (
        found is scheduler._site_code
        and instruction == scheduler._site_instruction
        and caller._sites is scheduler._site_inherited
    ):
        # The same place as in the last call, as in a loop.
        return scheduler._sites
    name = (<dict>names).get("__name__")
    if type(name) is not str or (<str>name).startswith("vthreads") and (name == "vthreads" or (<str>name)[8] == "."):
        return None
    site = vt_new(SpawnSite)
    site._code, site._instruction = found, instruction
    scheduler._site_code, scheduler._site_instruction, scheduler._site_inherited = found, instruction, caller._sites
    scheduler._sites = (site, *(<tuple>caller._sites)[: LONGEST_CHAIN - 1])
    return scheduler._sites
