# The lock of the operating system that guards a few instructions.


cdef class Section:
    """A reentrant lock for a few instructions: `with section:`. A finalizer may run inside."""

    cdef PyThread_type_lock _lock
    cdef unsigned long _owner
    cdef int _count

    def __cinit__(self):
        self._lock = PyThread_allocate_lock()
        if self._lock is NULL:
            raise MemoryError

    def __dealloc__(self):
        if self._lock is not NULL:
            PyThread_free_lock(self._lock)

    cdef void _enter(self) noexcept:
        cdef unsigned long me = PyThread_get_thread_ident()
        if self._owner != me:
            if not PyThread_acquire_lock(self._lock, NOWAIT_LOCK):
                with nogil:
                    PyThread_acquire_lock(self._lock, WAIT_LOCK)
            self._owner = me
        self._count += 1

    cdef void _leave(self) noexcept:
        self._count -= 1
        if not self._count:
            self._owner = 0
            PyThread_release_lock(self._lock)

    def __enter__(self):
        self._enter()
        return True

    def __exit__(self, kind, error, traceback):
        self._leave()

    def _at_fork_reinit(self):
        """Reset to free, in the child of a fork: the thread that held it may not exist here. CPython's name for it."""
        # The old lock may be held, so it cannot be destroyed; its memory is lost.
        self._lock = PyThread_allocate_lock()
        if self._lock is NULL:
            raise MemoryError
        self._owner, self._count = 0, 0
