# Tasks of Python 3.11 whose first step is made at once.

from contextvars import Context
from weakref import getweakrefcount, ref

cdef extern from "Python.h":
    int PyIter_Send(object, object, PyObject **) except -1
    int PyContext_Enter(object) except -1
    int PyContext_Exit(object) except -1
    Py_ssize_t Py_REFCNT(PyObject *)
    # Tasks have attributes, but no `__dict__`. NULL, or the place of their dict, which is NULL if there is none.
    PyObject **_PyObject_GetDictPtr(object)

# Supplied by the readable code, since this does not import asyncio.
cdef object Task = None, task_entries = None, remove_task_entry = None
cdef object enter_current_task = None, leave_current_task = None


def set_task_names(*, task_type, all_tasks, enter_task, leave_task):
    global Task, task_entries, remove_task_entry, enter_current_task, leave_current_task
    Task, enter_current_task, leave_current_task = task_type, enter_task, leave_task
    task_entries, remove_task_entry = getattr(all_tasks, "data", None), getattr(all_tasks, "_remove", None)


cdef class TaskStarter:
    cdef object _loop
    cdef TaskSteps _spare, _pausing
    cdef bint _keeps

    def __init__(self, loop):
        self._loop, self._keeps = loop, Task.__module__ == "_asyncio"

    def __call__(self, coroutine, context):
        return self._start(coroutine, context)

    cdef object _start(self, coroutine, context):
        cdef TaskSteps steps
        if self._loop.get_debug():
            self._drop_spare()
        steps, self._spare = self._spare, None
        if steps is None:
            steps = self._new_steps()
        return steps._start(coroutine, context)

    cdef TaskSteps _new_steps(self):
        cdef TaskSteps steps = TaskSteps()
        steps._starter, steps._own_context = self, Context()
        self._begin_to_catch(steps)
        try:
            task = Task(steps, loop=self._loop, context=steps._own_context)
        finally:
            self._stop_catching()
        steps._task, steps._name = task, task.get_name()
        steps._entry = ref(task, remove_task_entry)
        return steps

    cdef int _begin_to_catch(self, TaskSteps steps) except -1:
        self._pausing = steps
        self._loop.call_soon = self._catch
        return 0

    cdef int _stop_catching(self) except -1:
        if self._pausing is not None:
            self._pausing = None
            del self._loop.call_soon
        return 0

    def _catch(self, callback, *args, context=None):
        steps = self._pausing
        if steps is not None and getattr(getattr(callback, "__self__", None), "_coro", None) is steps:
            (<TaskSteps>steps)._next_step = callback
            self._stop_catching()
            return None
        # A finalizer that runs meanwhile has called this: pass its callback on.
        return type(self._loop).call_soon(self._loop, callback, *args, context=context)

    def close(self):
        """Drop the spare task, because the loop ends."""
        self._keeps = False
        self._drop_spare()

    cdef int _drop_spare(self) except -1:
        cdef TaskSteps steps
        steps, self._spare = self._spare, None
        if steps is not None:
            steps._task = steps._next_step = None
        return 0

    cdef bint _take_back(self, TaskSteps steps) except -1:
        if not self._keeps or self._spare is not None:
            return False
        self._spare = steps
        return True


@cython.final
cdef class TaskSteps:
    """The coroutine of a task: the steps of one coroutine after the other. The readable code explains it."""

    cdef TaskStarter _starter
    cdef object _own_context, _next_step, _coroutine, _context, _yielded, _task, _name, _entry
    # Whether the end of the task without its last step is not reported.
    cdef bint _is_quiet
    cdef bint _has_yielded
    cdef tuple _cancelled_with

    def __getattr__(self, name):
        return getattr(self._coroutine, name)

    cdef object _start(self, coroutine, context):
        loop = self._starter._loop
        self._coroutine, self._context = coroutine, context
        (<set>task_entries).add(self._entry)
        enter_current_task(loop, self._task)
        try:
            self._has_yielded = self._send(coroutine, context)
        finally:
            leave_current_task(loop, self._task)
            if self._has_yielded or not self._is_spare_again(2):
                self._go_on()
        return None if self._coroutine is None else self._task

    cdef bint _send(self, coroutine, context) except -1:
        """Make a step of the coroutine; return whether it has yielded."""
        cdef PyObject *result = NULL
        cdef int status
        PyContext_Enter(context)
        try:
            status = PyIter_Send(coroutine, None, &result)
        finally:
            PyContext_Exit(context)
        self._yielded = <object>result
        Py_DECREF(self._yielded)
        return status > 0

    cdef bint _is_spare_again(self, Py_ssize_t holders) except -1:
        self._coroutine = self._context = self._yielded = None
        (<set>task_entries).discard(self._entry)
        if (
            Py_REFCNT(<PyObject *>self._task) != holders
            or getweakrefcount(self._task) != 1
            or self._task.cancelling()
            or self._task._must_cancel
            or self._task._callbacks is not None
            or _PyObject_GetDictPtr(self._task)[0] is not NULL
            or self._task.get_name() is not self._name
            or not self._starter._take_back(self)
        ):
            return False
        if not self._is_quiet:
            self._is_quiet, self._task._log_destroy_pending = True, False
        return True

    cdef int _go_on(self) except -1:
        self._is_quiet, self._task._log_destroy_pending = False, True
        step, self._next_step = self._next_step, None
        self._own_context.run(step)
        if self._cancelled_with is not None:
            arguments, self._cancelled_with = self._cancelled_with, None
            self._task.cancel(*arguments)
            self._task.uncancel()
        return 0

    def __next__(self):
        return self._step(None)

    def send(self, value):
        """Make one step."""
        return self._step(None)

    def throw(self, error):
        """Make a step that begins with an exception."""
        if self._has_yielded:
            self._cancelled_with = error.args
            error = None
        return self._step(error)

    cdef object _step(self, error):
        if not self._has_yielded:
            if self._coroutine is None:
                # It has ended in its first step, and the task ends with it.
                self._task = None
                raise StopIteration if error is None else error
            self._has_yielded = self._make_step(error)
        if self._has_yielded:
            self._has_yielded = False
            yielded, self._yielded = self._yielded, None
            return yielded
        if not self._is_spare_again(3):
            self._task = None
            raise StopIteration
        self._starter._begin_to_catch(self)
        return None

    cdef bint _make_step(self, error) except -1:
        try:
            if error is None:
                return self._send(self._coroutine, self._context)
            self._yielded = self._context.run(self._coroutine.throw, error)
            return True
        except StopIteration:
            return False
        except BaseException:
            self._task = None
            raise

    def close(self):
        """Close the coroutine."""
        if self._coroutine is not None:
            self._coroutine.close()

    def __await__(self):
        return self
