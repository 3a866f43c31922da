# The running loop of each virtual thread, stored again after each switch.

# Supplied by the readable code.
cdef bint TASK_IS_OF_OS_THREAD = False
cdef object swap_current_task = None


def set_loop_names(*, task_is_of_os_thread, swap_task):
    global TASK_IS_OF_OS_THREAD, swap_current_task
    TASK_IS_OF_OS_THREAD, swap_current_task = task_is_of_os_thread, swap_task


cdef class RunningLoops:
    # By virtual thread: the loop that it runs.
    cdef dict _by_thread
    # By loop: the current task at the time when the virtual thread of the loop parked.
    cdef dict _tasks
    # The loop that asyncio sees at present.
    cdef object _shown
    cdef object _get, _set

    def __init__(self):
        from _asyncio import _get_running_loop, _set_running_loop

        self._get, self._set = _get_running_loop, _set_running_loop
        self._by_thread, self._tasks = {}, {}

    def get(self, thread):
        """Return the running loop of `thread`, or None."""
        return self._by_thread.get(thread)

    def note(self, thread, loop):
        """Record that `loop` is the running loop of `thread`, which runs; None: it has none."""
        self._shown = loop
        if loop is None:
            self.forget(thread)
            return
        self._by_thread[thread] = loop
        thread._scheduler.when_landed = self._landed

    def forget(self, thread):
        """Handle that the loop of `thread` has ended."""
        if self._by_thread.pop(thread, None) is not None and not self._by_thread:
            thread._scheduler.when_landed = None

    def _landed(self, thread):
        loop = self._by_thread.get(thread)
        if loop is not self._shown:
            self._show(thread, loop)

    cdef int _show(self, thread, loop) except -1:
        if TASK_IS_OF_OS_THREAD:
            self._put_task_away()
        if loop is not None and not loop.is_running():
            # The loop has ended and this was not recorded: uvloop may call the original function of asyncio.
            self.forget(thread)
            loop = None
        self._set(loop)
        self._shown = loop
        if self._tasks and loop in self._tasks:
            swap_current_task(loop, self._tasks.pop(loop))
        return 0

    cdef int _put_task_away(self) except -1:
        # A loop whose end was not recorded is no longer stored in asyncio, which refuses to swap its task.
        if self._shown is not None and self._get() is self._shown:
            task = swap_current_task(self._shown, None)
            if task is not None:
                self._tasks[self._shown] = task
        return 0
