# Tasks of Python 3.11 whose first step is made at once.

# Supplied by the readable code, since this does not import asyncio.
cdef object Task = None


def set_task_names(*, task_type):
    global Task
    Task = task_type


cdef class TaskStarter:
    cdef object _loop, _first_step

    def __init__(self, loop):
        self._loop = loop

    def __call__(self, coroutine, context):
        return self._start(coroutine, context)

    cdef object _start(self, coroutine, context):
        """Create a task and make its first step."""
        loop = self._loop
        loop.call_soon = self._catch
        try:
            task = Task(coroutine, loop=loop, context=context)
        finally:
            del loop.call_soon
        first_step, self._first_step = self._first_step, None
        assert first_step is not None
        context.run(first_step)
        return task

    def _catch(self, callback, *args, context=None):
        if self._first_step is None and type(getattr(callback, "__self__", None)) is Task:
            self._first_step = callback
            return None
        # A finalizer that runs while the task is made has called this: pass its callback on.
        return type(self._loop).call_soon(self._loop, callback, *args, context=context)
