# The fiber: the unit of switching.

from contextvars import Context
from sys import _getframe


cdef class Withdrawable:
    """A queue that is passed to `_park` in place of an undo function."""

    cpdef bint withdraw(self, waiter) except -1:
        """Remove `waiter`; return false if it is already unparked."""
        raise NotImplementedError(f"{type(self).__name__} has no withdraw()")


cdef class Fiber:
    """The unit of switching. It stays on its scheduler for life, because a greenlet cannot change its OS thread."""

    cdef public Scheduler _scheduler
    cdef public object state, _greenlet, _abort, _answer
    # None while it is empty: the interpreter creates one when the first variable is set.
    cdef object _context
    # The name of a compiled call that parks, and its object.
    cdef object _waits_in, _waits_on
    # Borrowed: the raw file whose buffer the fiber has called through a compiled method. NULL between such calls.
    cdef PyObject *_reads_through
    # Set and read by the wait queue in which the fiber waits.
    cdef object _place
    cdef public double _parked_at, _parked_until
    cdef public bint _pending, _has_begun_to_wait

    def __cinit__(self):
        self.state = NEW
        self._answer = NOTHING
        self._parked_at = -INF
        self._parked_until = INF

    def __init__(self, Scheduler scheduler, context):
        self._scheduler = scheduler
        self.context = context

    def run(self):
        """The code of the fiber. Must not raise."""
        raise NotImplementedError(f"{type(self).__name__} does not define run()")

    cdef int _run(self) except -1:
        """Call `run` (called by the scheduler). A compiled subclass overrides it and so runs without a Python call."""
        self.run()
        return 0

    def _frame(self):
        """Return the innermost frame of the fiber; None before its first run and after its end."""
        if self._greenlet is PyGreenlet_GetCurrent() or self._scheduler.running is self:
            # Its greenlet is the current one, even if it is parked: a fiber that finds no ready one polls on its stack.
            return _getframe(0)
        return None if self._greenlet is None else self._greenlet.gr_frame

    cpdef _leave_context(self):
        """Switch to an empty context, so that values of the old one are freed now. Called by the fiber itself."""
        if self._context is not None or vt_has_context():
            self._context = None
            vt_leave_context()

    cpdef _retire(self):
        """Mark the fiber as ended: foreign code that runs before its greenlet is left cannot wait."""
        self._scheduler._suspend_tracing()
        self._scheduler.running = None
        self.state = ENDED

    def _break_cycles(self):
        """Drop references that form cycles. Called after the end, when any code may run."""

    cdef int _drop_references(self) except -1:
        """Call `_break_cycles` (called by the scheduler), as `_run` calls `run`."""
        self._break_cycles()
        return 0

    # --- checkpoints

    cpdef _check(self):
        """The start of every checkpoint: raise what is pending, and yield after a long run."""
        cdef Scheduler scheduler
        if self._pending or vt_lacks_room(ROOM):
            self._raise_if_due()
        scheduler = self._scheduler
        if scheduler.now() >= scheduler.slice_end:
            scheduler._yield()
            if self._pending:
                self._raise_if_due()

    cdef int _check_landed(self) except -1:
        """`_check` directly after a wait, when the slice has just begun, unless a fork or a signal has ended it."""
        if self._pending or self._scheduler.slice_end == -INF:
            Fiber._check(self)
        return 0

    # Like the parts of `Scheduler.park`: not in the frame that is copied at a switch.
    cdef int _raise_if_due(self) except -1:
        if vt_lacks_room(ROOM):
            refuse_to_wait()
        if self._pending:
            self._raise_due()
        return 0

    cpdef _give_way(self):
        """Yield after a long run, for calls that are not checkpoints but may be the only calls of a loop."""
        cdef Scheduler scheduler = self._scheduler
        if scheduler.now() >= scheduler.slice_end and not vt_lacks_room(ROOM):
            scheduler._yield()

    cpdef _yield_now(self):
        """A checkpoint that lets every ready fiber run once."""
        self._begin_checkpoint()
        self._scheduler._yield()
        self._end_checkpoint()

    @cython.final
    cdef int _begin_checkpoint(self) except -1:
        return self._raise_if_due() if self._pending or vt_lacks_room(ROOM) else 0

    @cython.final
    cdef int _end_checkpoint(self) except -1:
        return self._raise_if_due() if self._pending else 0

    @property
    def context(self):
        if self._context is None:
            self._context = self._own_context()
        return self._context

    @context.setter
    def context(self, context):
        self._context = context

    cdef object _own_context(self):
        """Return the context that the interpreter created, or a new one that the fiber runs in from now on."""
        if self._greenlet is PyGreenlet_GetCurrent() or self._scheduler.running is self:
            return vt_context()
        if self._greenlet is None:
            return Context()
        found = self._greenlet.gr_context
        if found is None:
            found = self._greenlet.gr_context = Context()
        return found

    @property
    def _waits_for(self):
        """Name and object of the compiled call that parks; None if a Python frame shows it."""
        return None if self._waits_in is None else (self._waits_in, self._waits_on)

    def _park(self, abort=None, timeout=None):
        """Park, after `_check`; return the value of `_unpark`, or TIMED_OUT after `timeout` seconds."""
        return self._park_until(abort, INF if timeout is None else self._scheduler.now() + <double>timeout)

    cdef object _stay(self, abort, double deadline):
        """Park for a compiled call and clear `_waits_in`; return the answer, ABORTED, or the exception that was raised.

        Without `finally`, which would need a large frame on the C stack.
        """
        answer = self._stay_pending(abort, deadline) if self._pending else self._scheduler._park(abort, deadline)
        self._waits_in = self._waits_on = None
        return answer

    cdef object _stay_pending(self, abort, double deadline):
        try:
            return self._park_pending(abort, deadline)
        except BaseException as error:  # raised by the caller after it has removed itself from its queue
            return error

    cdef object _park_until(self, abort, double deadline):
        if self._pending:
            return self._park_now_pending(abort, deadline)
        return self._checked(self._scheduler._park(abort, deadline))

    cdef object _park_now_pending(self, abort, double deadline):
        return self._park_pending(abort, deadline)

    cdef object _checked(self, answer):
        if answer is ABORTED:
            self._raise_aborted()
        return answer

    def _raise_due(self):
        """Raise what must be raised now, if anything: `_pending` only means that there may be something."""

    def _park_pending(self, abort, double deadline):
        """`_park` while `_pending` is set."""
        return self._scheduler._park(abort, deadline)

    def _raise_aborted(self):
        """Raise the exception for which `_park` was aborted."""

    # --- being unparked

    def _may_be_roused(self):
        """Return whether `_rouse` may take effect; called on the OS thread of the fiber."""
        return True

    cpdef _unpark(self, value=True):
        """Make the fiber ready; `_park` returns `value`. Thread-safe; returns false if it was not parked any more."""
        cdef Scheduler scheduler = self._scheduler
        if PyThread_get_thread_ident() != scheduler.ident:
            scheduler.post(self._unpark_here, value)
            return True
        return Fiber._unpark_here(self, value)

    cpdef _unpark_here(self, value):
        if self._scheduler.when_forking is not None:
            # In the child of a fork, a fiber of the parent ends by this: it must not get a lock or an item.
            self._scheduler.when_forking()
        if self.state is PARKED:
            self._answer = value
            Scheduler.make_ready(self._scheduler, self)
            return True
        if self._answer is NOTHING and (self.state is RUNNING or self.state is READY):
            # The fiber is queued but has not parked yet. Store the value, so that its park returns at once.
            self._answer = value
            return True
        return False

    cpdef _take_answer(self):
        answer, self._answer = self._answer, NOTHING
        return answer

    def _rouse(self):
        """Make the fiber check what is pending: if its wait can be withdrawn, `_park` returns ABORTED. Thread-safe."""
        if PyThread_get_thread_ident() == self._scheduler.ident:
            self._rouse_here()
        else:
            self._scheduler.post(self._rouse_here)

    def _rouse_here(self):
        if self.state is PARKED and self._may_be_roused():
            self._withdraw(ABORTED)

    cpdef _expire(self):
        """Handle the deadline of `_park`."""
        if self.state is PARKED:
            self._withdraw(TIMED_OUT)

    cdef _withdraw(self, answer):
        cdef bint withdrawn
        if self._abort is None:
            withdrawn = True
        elif isinstance(self._abort, Withdrawable):
            withdrawn = (<Withdrawable>self._abort).withdraw(self)
        else:
            withdrawn = self._abort()
        if withdrawn:
            self._answer = answer
            Scheduler.make_ready(self._scheduler, self)
