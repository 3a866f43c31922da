# The futures of ended members.

from cpython.weakref cimport PyWeakref_NewRef

cdef Py_ssize_t FEWEST_ENDED = states.FEWEST_ENDED


cdef class EndedFutures:
    """The futures of ended members, as long as other code refers to them."""

    cdef readonly Py_ssize_t count
    cdef list _references
    cdef Py_ssize_t _limit

    def __cinit__(self):
        self._references = []
        self._limit = FEWEST_ENDED

    cpdef add(self, future):
        self.count += 1
        self._references.append(PyWeakref_NewRef(future, None))
        if len(self._references) >= self._limit:
            self._drop_dead()

    def held(self):
        return [future for reference in list(self._references) if (future := reference()) is not None]

    cdef int _drop_dead(self) except -1:
        # Nothing here allocates an object that the garbage collector tracks, or drops the last reference to a future:
        # no finalizer runs inside.
        cdef Py_ssize_t place, alive = 0
        for place in range(len(self._references)):
            reference = self._references[place]
            if reference() is not None:
                self._references[alive] = reference
                alive += 1
        del self._references[alive:]
        self._limit = max(FEWEST_ENDED, 2 * alive)
        return 0
