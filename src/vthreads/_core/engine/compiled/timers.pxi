# The heap of timers, as in `timers.py`.


# Excluded from garbage collection, which has enough work with the threads: an entry drops its owner when it expires or
# is cancelled, and until then the heap keeps both alive.
@cython.no_gc
@cython.freelist(256)
cdef class Timer:
    """The place of an owner in the heap. Dropping its owner cancels it."""

    cdef readonly double when
    cdef public object owner


cdef struct Entry:
    double when
    # Unique numbers decide ties.
    unsigned long long number
    # A reference that the heap owns.
    PyObject *timer


cdef inline bint _is_before(const Entry *one, const Entry *other) noexcept nogil:
    return one.when < other.when or (one.when == other.when and one.number < other.number)


# Entries for which there is room at least, once there was one.
cdef enum:
    LEAST_ROOM = 64


cdef class Timers:
    """Timers of one scheduler; used on its OS thread only.

    With tens of thousands of timers, a heap of Python objects costs a cache miss for each comparison. So the entries are
    in an array of C, and each has four children, which are next to each other.
    """

    cdef Entry *_entries
    cdef Py_ssize_t _count, _room, _cancelled
    cdef unsigned long long _numbers

    def __dealloc__(self):
        while self._count:
            self._count -= 1
            Py_DECREF(<object>self._entries[self._count].timer)
        PyMem_Free(self._entries)

    def __len__(self):
        return self._count - self._cancelled

    def __iter__(self):
        """Yield time and owner of each timer that was not cancelled, for inspection from any OS thread."""
        cdef list timers = []
        cdef Timer timer
        cdef Py_ssize_t at = 0
        # Appending runs no other code, so the array stays where it is.
        while at < self._count:
            timers.append(<Timer>self._entries[at].timer)
            at += 1
        return iter([(timer.when, timer.owner) for timer in timers if timer.owner is not None])

    cpdef Timer add(self, double when, owner):
        cdef Timer timer = Timer.__new__(Timer)
        cdef Entry entry
        if self._count == self._room and not self._resize(max(2 * self._room, LEAST_ROOM)):
            raise MemoryError(f"no memory for timer {self._count + 1}")
        timer.when = when
        timer.owner = owner
        entry.when, entry.number, entry.timer = when, self._numbers, <PyObject *>timer
        Py_INCREF(timer)
        self._numbers += 1
        self._count += 1
        self._rise(self._count - 1, entry)
        return timer

    cpdef cancel(self, Timer timer):
        """Cancel `timer`. No effect if it has expired already."""
        # Kept until the end: dropping it may run other code, which may use this heap.
        owner, timer.owner = timer.owner, None
        if owner is None:
            return
        self._cancelled += 1
        # Most timeouts are cancelled long before they are due. If they stayed, they would fill the heap.
        if self._cancelled > 64 and self._cancelled * 2 > self._count:
            self._drop_cancelled()

    cdef int _drop_cancelled(self) except -1:
        cdef Py_ssize_t at, kept = 0
        for at in range(self._count):
            if (<Timer>self._entries[at].timer).owner is None:
                # It has no owner any more, so its end runs no other code.
                Py_DECREF(<object>self._entries[at].timer)
            else:
                self._entries[kept] = self._entries[at]
                kept += 1
        self._count, self._cancelled = kept, 0
        for at in range((kept - 2) // 4, -1, -1):
            self._sink(at, self._entries[at])
        self._give_back()
        return 0

    cpdef double due(self):
        """Return the time of the earliest timer; `inf` if there is none."""
        while self._count and (<Timer>self._entries[0].timer).owner is None:
            self._pop()
            self._cancelled -= 1
        return self._entries[0].when if self._count else INF

    cpdef bint expire(self, double now) except -1:
        """Expire all timers that are due, earliest first; return whether there was one."""
        cdef Timer timer
        cdef bint any_expired = False
        while self.due() <= now and self._count:
            timer = self._pop()
            owner, timer.owner = timer.owner, None
            owner._expire()
            any_expired = True
        return any_expired

    cdef Timer _pop(self):
        cdef Timer first = <Timer>self._entries[0].timer
        # `first` has its own reference.
        Py_DECREF(first)
        self._count -= 1
        if self._count:
            self._sink(0, self._entries[self._count])
        self._give_back()
        return first

    cdef void _rise(self, Py_ssize_t place, Entry entry) noexcept:
        cdef Py_ssize_t parent
        while place:
            parent = (place - 1) >> 2
            if not _is_before(&entry, &self._entries[parent]):
                break
            self._entries[place] = self._entries[parent]
            place = parent
        self._entries[place] = entry

    cdef void _sink(self, Py_ssize_t place, Entry entry) noexcept:
        cdef Py_ssize_t child, least, first = 4 * place + 1
        while first < self._count:
            least = first
            for child in range(first + 1, min(first + 4, self._count)):
                if _is_before(&self._entries[child], &self._entries[least]):
                    least = child
            if not _is_before(&self._entries[least], &entry):
                break
            self._entries[place] = self._entries[least]
            place = least
            first = 4 * place + 1
        self._entries[place] = entry

    cdef bint _resize(self, Py_ssize_t room) noexcept:
        cdef Entry *resized = <Entry *>PyMem_Realloc(self._entries, room * sizeof(Entry))
        if resized is NULL:
            return False
        self._entries, self._room = resized, room
        return True

    cdef void _give_back(self) noexcept:
        """Halve an array of which three quarters are empty."""
        if self._room > LEAST_ROOM and self._count < self._room // 4:
            self._resize(self._room // 2)
