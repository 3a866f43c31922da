# The poller over epoll, called without a list of events.

# The number of events that are read at once.
cdef enum:
    EVENTS = 256


cdef class EpollEvents:
    """The events that one wait for an epoll poller has returned."""

    # The pipe that interrupts a wait.
    cdef object _wakeup_pipe
    cdef int _epoll, _wakeup, _count
    cdef vt_event *_events

    def __cinit__(self, poller, int epoll):
        self._events = <vt_event *>PyMem_Malloc(EVENTS * sizeof(vt_event))
        if self._events is NULL:
            raise MemoryError
        self._wakeup_pipe, self._epoll, self._wakeup = poller._wakeup, epoll, poller.wakeup_fd

    def __dealloc__(self):
        PyMem_Free(self._events)

    cdef int wait(self, double seconds) except -1:
        """Wait for up to `seconds` (negative: until an event)."""
        cdef int milliseconds, error
        cdef double until = vt_monotonic() + seconds if seconds > 0 else 0
        while True:
            # Rounded up: if it woke before the timer is due, it would spin through the last millisecond.
            milliseconds = -1 if seconds < 0 else <int>(seconds * 1000 + 0.999999)
            if milliseconds:
                with nogil:
                    self._count = vt_epoll_wait(self._epoll, self._events, EVENTS, milliseconds)
                    error = errno
            else:
                self._count = vt_epoll_wait(self._epoll, self._events, EVENTS, 0)
                error = errno
            if self._count >= 0:
                return 0
            if error != EINTR:
                raise OSError(error, os.strerror(error))
            PyErr_CheckSignals()
            if seconds > 0:
                seconds = max(0.0, until - vt_monotonic())

    cdef int interrupt(self) except -1:
        """Interrupt the wait, from any OS thread.

        Without the GIL: the system may run the interrupted carrier at once, and that one needs the GIL next.
        """
        cdef int fd, error = 0
        with self._wakeup_pipe._closing:
            if not self._wakeup_pipe._closed:
                fd = self._wakeup_pipe.write_fd
                with nogil:
                    error = vt_write_wakeup(fd)
        if error:
            raise OSError(error, os.strerror(error))
        return 0

    # Repeats `WakeupPipe.drain`.
    cdef bint report(self, Descriptors descriptors) except -1:
        """Report the events to `descriptors`; return whether there was one."""
        cdef int i
        cdef bint any_event = False, interrupted = False
        for i in range(self._count):
            if vt_event_fd(&self._events[i]) == self._wakeup:
                interrupted = True
            else:
                any_event = True
                descriptors.report(vt_event_fd(&self._events[i]), vt_event_ready(&self._events[i]))
        if interrupted:
            vt_drain_wakeup(self._wakeup)
            # A signal may have written the byte. After the report: if a handler raised, edges would be lost.
            PyErr_CheckSignals()
        return any_event
