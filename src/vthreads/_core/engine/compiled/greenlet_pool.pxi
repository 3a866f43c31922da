# The greenlets of a scheduler.


@cython.final
cdef class GreenletPool:
    """Greenlets that run `code` and are not in use now; see the Python class of this name."""

    cdef object _code
    cdef greenlet _starter, _unstarted
    cdef list _kept
    cdef Py_ssize_t _size, _unwanted
    cdef double _every, shrinks_at

    def __init__(self, code):
        self._code = code
        self._starter = PyGreenlet_New(self._start_greenlets, PyGreenlet_GetCurrent())
        self._kept = []
        self._size, self._every = states.POOL_SIZE, states.SHRINK_EVERY
        self.shrinks_at = -INF
        vt_keep_stacks()

    def __len__(self):
        return len(self._kept)

    cdef greenlet take(self):
        cdef greenlet target
        cdef bint collecting
        if self._kept:
            target = self._kept.pop()
            if len(self._kept) < self._unwanted:
                self._unwanted = len(self._kept)
            return target
        # Python 3.11 may collect garbage at any allocation, and finalizers may wait. No fiber runs here, so postpone it.
        collecting = PyGC_Disable()
        self._unstarted = PyGreenlet_New(self._code, self._starter)
        if collecting:
            PyGC_Enable()
        return self._starter

    cdef int keep(self, greenlet me) except -1:
        self._kept.append(me)
        return 0

    cdef bint may_shrink(self) noexcept:
        return len(self._kept) > self._size or vt_many_warm()

    cdef int shrink(self, double now) except -1:
        """End greenlets that were not used for a while, and return the memory of frame stacks."""
        cdef Py_ssize_t spare = min(self._unwanted, len(self._kept) - self._size)
        self._end(max(0, min(spare, SHRINK_BY)))
        self._unwanted = len(self._kept)
        vt_cool_stacks()
        self.shrinks_at = now + (SHRINK_PAUSE if spare > SHRINK_BY else self._every)
        return 0

    def close(self):
        self._end(len(self._kept))
        self._starter.parent = PyGreenlet_GetCurrent()
        self._starter.switch()

    cdef int _end(self, Py_ssize_t count) except -1:
        cdef list ended = self._kept[:count]
        del self._kept[:count]
        for one in ended:
            one.parent = PyGreenlet_GetCurrent()
            one.switch()
        return 0

    def _start_greenlets(self):
        cdef greenlet target
        while self._unstarted is not None:
            target, self._unstarted = self._unstarted, None
            PyGreenlet_Switch(target, NULL, NULL)
