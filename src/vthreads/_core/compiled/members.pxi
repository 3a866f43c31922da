# The fields of an owner of threads, the creation of a member, and its common end. The readable code handles all other
# cases.

from sys import modules

from vthreads._core.spawn_site import LONGEST_CHAIN as _LONGEST_CHAIN
from vthreads._core.spawn_site import SpawnSite

cdef int LONGEST_CHAIN = _LONGEST_CHAIN
# Supplied by the readable code. Owners of these types end their members as `Members` and `ThreadGroup` do.
cdef object group_type = None, background_type = None, VirtualThread = None, OPEN = None


cdef class MemberFields(Owner):
    cdef public object _body, _closed, _home, _listeners, _permits, _phase, _scope
    cdef public dict _members
    cdef public EndedFutures _ended
    cdef public Section _changing
    cdef public WaitQueue _empty
    cdef public bint _spreads

    # Repeats `VirtualThread._end`, `VirtualThread._leave`, `Members._settle`, `Future._settle`, `Future._set`,
    # `CancelNode._detach`, `ThreadGroup._member_ended` and `Members._member_ended`. A member is only in the dict of its
    # owner, and so needs no detaching.
    cdef bint _end_quietly(self, ThreadFields thread, bint is_cancelled, value) except -1:
        cdef FutureFields future
        if type(self) is not group_type and type(self) is not background_type or thread._innermost is not thread:
            return False
        if thread._children or thread._joiners is not None or self._spreads:
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
        future._result, future._state = value, CANCELLED if is_cancelled else FINISHED
        changing_futures._leave()
        if future._waiting is not None:
            (<WaitQueue>future._waiting).unpark_all()
        Fiber._leave_context(thread)
        # Dropping the context may run any code, which may have cancelled or interrupted the thread: forget that,
        # because nothing is delivered any more.
        thread._deliveries = thread._interrupts = thread._roused_by = None
        Fiber._retire(thread)
        if self._permits is None:
            self._drop_member(thread, future)
        else:
            self._release_member(thread)
        if thread._joiners is not None:
            thread._joiners.unpark_all()
        return True

    cdef int _drop_member(self, ThreadFields thread, FutureFields future) except -1:
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
        return 0

    cdef int _release_member(self, ThreadFields thread) except -1:
        try:
            self._member_ended(thread)
        except BaseException as error:  # raised by the permits, which may be of a class of the program
            self._failed_at_end(thread, error)
        return 0


# Repeats `VirtualThread._init_thread`, `Recipient._init_delivery`, `CancelNode._init_node` and `Future._init_future`.
cdef ThreadFields _new_member(owner, Scheduler scheduler, context, function, arguments, keywords, sites):
    cdef ThreadFields thread = <ThreadFields>vt_new(VirtualThread)
    thread._scheduler = scheduler
    thread._context = context
    thread.group = owner
    thread._function, thread._arguments, thread._keywords = function, arguments, keywords if keywords else None
    thread._sites = sites
    thread._thread_ident = _next_ident()
    thread._innermost = thread
    thread._cleanup_ends_at = -INF
    thread._listens = True
    future = vt_new(Future)
    (<FutureFields>future).thread = thread
    (<FutureFields>future)._state = FUTURE_RUNNING
    thread._future = future
    return thread


cdef int _hide(ThreadFields thread) except -1:
    """Hide `thread` and its future from the garbage collector, which would visit each thread again and again.

    Until a thread ends, its owner refers to it, so neither is garbage. `_drop_references` undoes it.
    """
    PyObject_GC_UnTrack(<PyObject *>thread)
    PyObject_GC_UnTrack(<PyObject *>thread._future)
    return 0


# Repeats `inherited_context`, but returns None for an empty context.
cdef object _inherited_context():
    context = vt_copy_context()
    if context is not None and "decimal" in modules:
        _renew_decimal(context)
    return context


# Repeats `Members._why_over`.
cdef inline bint _accepts(MemberFields owner) except -1:
    return owner._phase is OPEN and owner._closed is None and owner._scope._affected_by is None


# Repeats `Members._refuse_if_over`, in the case that the owner accepts the thread.
@cython.binding(True)
def add_member(self, caller, call, sites, context=None):
    cdef MemberFields owner = <MemberFields?>self
    cdef ThreadFields thread
    if not _accepts(owner):
        self._refuse_if_over(caller)
    if context is None:
        context = _inherited_context()
    function, arguments, keywords = call
    thread = _new_member(self, <Scheduler?>self._scheduler_for(caller), context, function, arguments, keywords, sites)
    owner._members[thread] = None
    _hide(thread)
    return thread


# Repeats `check_function`, `ThreadGroup._spawn`, `Members._spawn`, `Members._admit`, `Members._launch` and
# `CancelNode._attach_member`.
cdef ThreadFields _admit_here(self, fn, arguments, keywords):
    """Create a member that starts here and now; return None, without effect, if this is not the common case."""
    cdef Scheduler scheduler, home = None
    cdef ThreadFields thread
    cdef MemberFields owner = <MemberFields>self if isinstance(self, MemberFields) else None
    if owner is None or vt_here is NULL or not isinstance((<Scheduler>vt_here).running, ThreadFields):
        return None
    if owner._permits is not None or owner._spreads or not _accepts(owner):
        return None
    scheduler = <Scheduler>vt_here
    if owner._home is not None:
        home = owner._home
    elif owner._body is not None:
        home = (<Fiber?>owner._body)._scheduler
    if home is not scheduler or scheduler.when_forking is not None:
        return None
    if not vt_does_work(fn) and type(fn) is not CompiledFunction:
        check_function(fn, "spawn")
    thread = _new_member(
        self, scheduler, _inherited_context(), fn, arguments, keywords, _sites_here(scheduler, scheduler.running)
    )
    owner._changing._enter()
    # A finalizer or another OS thread may have ended the group while the thread was created. No other code runs from
    # this check to the start.
    if not _accepts(owner):
        owner._changing._leave()
        thread._future = None
        return None
    owner._members[thread] = None
    owner._changing._leave()
    thread._parent = owner._scope
    return thread


@cython.binding(True)
def spawn_member(self, fn, /, *args, **kwargs):
    cdef ThreadFields thread = _admit_here(self, fn, args, kwargs)
    if thread is None:
        return self._spawn(fn, args, kwargs, True)
    return _started_here(thread)


cdef object _started_here(ThreadFields thread):
    """Start a thread that was admitted, and return its future when it has parked or ended."""
    future = thread._future
    thread._scheduler.start(thread)
    if thread.state is not ENDED:
        _hide(thread)
    return future


@cython.binding(True)
def sites_here(caller):
    return _sites_here(<Scheduler>vt_here if vt_here is not NULL else None, caller)


# Repeats `caller_site` and `SpawnSite.__init__`.
cdef tuple _sites_here(Scheduler scheduler, ThreadFields caller):
    """Return the spawn sites of the calling code, innermost first."""
    cdef PyObject *code
    cdef int instruction
    cdef tuple inherited = () if caller is None else caller._sites
    if not vt_place_outside(&code, &instruction):
        return inherited[: LONGEST_CHAIN - 1]
    found = <object>code
    Py_DECREF(found)
    if (
        scheduler is not None
        and found is scheduler._site_code
        and instruction == scheduler._site_instruction
        and inherited is scheduler._site_inherited
    ):
        # The same place as in the last call, as in a loop.
        return scheduler._sites
    site = vt_new(SpawnSite)
    site._code, site._instruction = found, instruction
    sites = (site, *inherited[: LONGEST_CHAIN - 1])
    if scheduler is not None:
        scheduler._site_code, scheduler._site_instruction = found, instruction
        scheduler._site_inherited, scheduler._sites = inherited, sites
    return sites
