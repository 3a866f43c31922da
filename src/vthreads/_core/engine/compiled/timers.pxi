# The heap of timers, as in `timers.py`.


# Excluded from garbage collection, which has enough work with the threads: an entry drops its owner when it expires or
# is cancelled, and until then the heap keeps both alive.
@cython.no_gc
@cython.freelist(256)
cdef class Timer:
    """One entry of the heap. Dropping its owner cancels it."""

    cdef readonly double when
    cdef unsigned long long _number
    cdef public object owner

    cdef bint _before(self, Timer other):
        return self.when < other.when or (self.when == other.when and self._number < other._number)


cdef class Timers:
    """Timers of one scheduler; used on its OS thread only."""

    cdef list _heap
    cdef unsigned long long _numbers
    cdef Py_ssize_t _cancelled

    def __cinit__(self):
        self._heap = []

    def __len__(self):
        return len(self._heap) - self._cancelled

    def __iter__(self):
        """Yield time and owner of each timer that was not cancelled, for inspection from any OS thread."""
        cdef Timer timer
        return iter([(timer.when, timer.owner) for timer in self._heap if timer.owner is not None])

    cpdef Timer add(self, double when, owner):
        cdef Timer timer = Timer.__new__(Timer)
        timer.when = when
        timer._number = self._numbers
        timer.owner = owner
        self._numbers += 1
        self._heap.append(timer)
        self._rise(len(self._heap) - 1)
        return timer

    cpdef cancel(self, Timer timer):
        """Cancel `timer`. No effect if it has expired already."""
        cdef Timer entry
        cdef Py_ssize_t i
        if timer.owner is None:
            return
        timer.owner = None
        self._cancelled += 1
        # Most timeouts are cancelled long before they are due. If they stayed, they would fill the heap.
        if self._cancelled > 64 and self._cancelled * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry.owner is not None]
            for i in range(len(self._heap) // 2 - 1, -1, -1):
                self._sink(i)
            self._cancelled = 0

    cpdef double due(self):
        """Return the time of the earliest timer; `inf` if there is none."""
        while self._heap and (<Timer>self._heap[0]).owner is None:
            self._pop()
            self._cancelled -= 1
        return (<Timer>self._heap[0]).when if self._heap else INF

    cpdef bint expire(self, double now) except -1:
        """Expire all timers that are due, earliest first; return whether there was one."""
        cdef Timer timer
        cdef bint any_expired = False
        while self.due() <= now and self._heap:
            timer = self._pop()
            owner, timer.owner = timer.owner, None
            owner._expire()
            any_expired = True
        return any_expired

    cdef Timer _pop(self):
        cdef list heap = self._heap
        cdef Timer first = <Timer>heap[0]
        last = heap.pop()
        if heap:
            heap[0] = last
            self._sink(0)
        return first

    cdef int _rise(self, Py_ssize_t place) except -1:
        cdef list heap = self._heap
        cdef Timer timer = <Timer>heap[place]
        cdef Py_ssize_t parent
        while place:
            parent = (place - 1) >> 1
            if not timer._before(<Timer>heap[parent]):
                break
            heap[place] = heap[parent]
            place = parent
        heap[place] = timer
        return 0

    cdef int _sink(self, Py_ssize_t place) except -1:
        cdef list heap = self._heap
        cdef Py_ssize_t count = len(heap), child
        cdef Timer timer = <Timer>heap[place]
        while True:
            child = 2 * place + 1
            if child >= count:
                break
            if child + 1 < count and (<Timer>heap[child + 1])._before(<Timer>heap[child]):
                child += 1
            if not (<Timer>heap[child])._before(timer):
                break
            heap[place] = heap[child]
            place = child
        heap[place] = timer
        return 0
