# The run queue of a first-in, first-out order.


@cython.final
cdef class RunQueue:
    """Fibers in the order in which they became ready: a ring buffer that grows."""

    cdef PyObject **_ring
    cdef Py_ssize_t _first, _count, _room

    def __cinit__(self):
        self._room = 64
        self._ring = <PyObject **>PyMem_Malloc(self._room * sizeof(PyObject *))
        if self._ring is NULL:
            raise MemoryError

    def __dealloc__(self):
        while self._count:
            self.popleft()
        PyMem_Free(self._ring)

    def __len__(self):
        return self._count

    cpdef int append(self, fiber) except -1:
        if self._count == self._room:
            self._grow()
        Py_INCREF(fiber)
        self._ring[(self._first + self._count) & (self._room - 1)] = <PyObject *>fiber
        self._count += 1
        return 0

    cpdef object popleft(self):
        if not self._count:
            raise IndexError("no fiber is ready")
        fiber = <object>self._ring[self._first]
        Py_DECREF(fiber)
        self._first = (self._first + 1) & (self._room - 1)
        self._count -= 1
        return fiber

    cdef int _grow(self) except -1:
        cdef Py_ssize_t i
        cdef PyObject **larger = <PyObject **>PyMem_Malloc(2 * self._room * sizeof(PyObject *))
        if larger is NULL:
            raise MemoryError
        for i in range(self._count):
            larger[i] = self._ring[(self._first + i) & (self._room - 1)]
        PyMem_Free(self._ring)
        self._ring, self._first, self._room = larger, 0, 2 * self._room
        return 0
