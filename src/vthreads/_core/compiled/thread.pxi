# The fields of a virtual thread, and its run. Its group handles the common end, and `_end` all other cases.

from types import FunctionType, MethodType

from vthreads._core.engine.states import call_in_a_frame
from vthreads._core.exceptions import drop_frame
from vthreads.errors import Cancelled

cdef extern from "_core/compiled/calls.h":
    object vt_new(object type)
    bint vt_does_work(object function)
    PyObject *vt_call(object function, object arguments, object keywords)
    PyObject *vt_call_in_a_frame(object caller, object function, object arguments, object keywords)
    int vt_failed() except -1


cdef class ThreadFields(Fiber)


cdef class Owner:
    """Base class of the compiled owner of a virtual thread."""

    cdef bint _end_quietly(self, ThreadFields thread, bint is_cancelled, value) except -1:
        """End `thread`, which returned `value` or was cancelled.

        Return false, without effect, if this is not the common case.
        """
        return False


cdef class ThreadFields(Fiber):
    cdef public object _affected_by, _cancel_reason, _cancel_source, _children, _parent, _cleanup_grace
    cdef object _function, _arguments, _keywords
    cdef public object _deliveries, _interrupts, _joiners, _name, _roused_by
    cdef public object _future, group, _innermost, _locals, _sites
    cdef public bint _cancel_called, _listens, _hurried, _queued
    cdef public int _deferred
    cdef public unsigned long long _thread_ident
    cdef public double _cleanup_ends_at

    @property
    def _call(self):
        """The function, its arguments and keywords. Stored separately, which saves a tuple per thread."""
        return None if self._function is None else (self._function, self._arguments, self._keywords or {})

    @_call.setter
    def _call(self, call):
        self._function, self._arguments, self._keywords = (None, None, None) if call is None else call

    # Repeats `VirtualThread.run`.
    cdef int _run(self) except -1:
        # Each switch copies the C stack, so keep little on it: the code before and after the call is in methods that are
        # not inlined.
        cdef PyObject *value
        cdef bint is_framed = False
        if self._queued or self._affected_by is not None or self._function is None:
            return self._run_readable()
        if type(self._function) is FunctionType or type(self._function) is MethodType:
            value = vt_call(self._function, self._arguments, self._keywords)
        else:
            is_framed = True
            value = vt_call_in_a_frame(call_in_a_frame, self._function, self._arguments, self._keywords)
        return self._fail(is_framed) if value is NULL else self._succeed(value)

    cdef int _run_readable(self) except -1:
        readable_parts["vthreads._core.thread.VirtualThread.run"](self)
        return 0

    cdef int _succeed(self, PyObject *owned) except -1:
        value = <object>owned
        Py_DECREF(value)
        self._function = self._arguments = self._keywords = None
        if not self._end_quietly(False, value):
            self._end_guarded(value, None)
        return 0

    cdef int _end_guarded(self, value, error) except -1:
        try:
            self._end(value, error)
        except BaseException as end_error:  # raised by a trace function
            self._end_after(end_error, value, error)
        return 0

    cdef bint _end_quietly(self, bint is_cancelled, value) except -1:
        return isinstance(self.group, Owner) and (<Owner>self.group)._end_quietly(self, is_cancelled, value)

    cdef int _fail(self, bint is_framed) except -1:
        error = None
        try:
            vt_failed()
        except BaseException as raised:  # raised by `Future.result`
            error = raised
        if type(error) is Cancelled:
            reason, source = error.reason, error.source
            error = None
            return self._end_cancelled(reason, source)
        # Remove the frames of this call and of the one around the function: noise in the user's traceback.
        try:
            drop_frame(error)
            if is_framed:
                drop_frame(error)
            error = self._kept_of(error)
            self._function = self._arguments = self._keywords = None
            self._end(None, error)
        except BaseException as end_error:  # raised by a trace function
            self._end_after(end_error, None, error)
        return 0

    # Repeats `VirtualThread._kept_of` and `Recipient._forget_errors`.
    cdef int _end_cancelled(self, reason, source) except -1:
        if self._deliveries is not None:
            # This frees the frames of the cancellation.
            for delivery in self._deliveries.values():
                delivery.error = None
        self._function = self._arguments = self._keywords = None
        if not self._end_quietly(True, None):
            self._end(None, Cancelled(reason, source))
        return 0

    # Repeats `VirtualThread._break_cycles`.
    cdef int _drop_references(self) except -1:
        if self._future is not None:
            _track(self._future)
        _track(self)
        self._future = self._affected_by = self._cancel_source = None
        if self._parent is not None:
            self._innermost = self._parent
        return 0


cdef int _track(thing) except -1:
    """Let the garbage collector visit `thing` again; see `_hide`."""
    if not PyObject_GC_IsTracked(<PyObject *>thing):
        PyObject_GC_Track(<PyObject *>thing)
    return 0


@cython.binding(True)
def run_thread(self):
    (<ThreadFields?>self)._run()
