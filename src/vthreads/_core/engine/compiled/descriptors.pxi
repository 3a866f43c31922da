# Descriptors and the fibers that wait for them, as in `descriptors.py`.

import os
from errno import EPERM

from vthreads._core.engine.descriptors import CLOSED as _CLOSED
from vthreads._core.engine.pollers import HANGUP as _HANGUP
from vthreads._core.engine.pollers import READ as _READ
from vthreads._core.engine.pollers import URGENT as _URGENT
from vthreads._core.engine.pollers import WRITE as _WRITE

cdef extern from "_core/engine/compiled/epoll.h":
    bint VT_HAS_EPOLL
    ctypedef struct vt_event:
        pass
    int vt_epoll_wait(int epoll, vt_event *events, int room, int milliseconds) nogil
    int vt_epoll_add(int epoll, int fd)
    int vt_epoll_rearm(int epoll, int fd)
    void vt_epoll_remove(int epoll, int fd)
    int vt_write_wakeup(int fd) nogil
    void vt_drain_wakeup(int fd)
    int vt_event_fd(vt_event *event)
    int vt_event_ready(vt_event *event)

cdef extern from "_core/engine/compiled/plain_tcp.h":
    bint vt_is_plain_tcp(int fd)

cdef object CLOSED = _CLOSED
cdef int READ = _READ
cdef int WRITE = _WRITE
cdef int HANGUP = _HANGUP
cdef int URGENT = _URGENT


cdef long mode_version = 1


def modes_changed():
    """Note that the program has changed the blocking mode of an open file. Thread-safe."""
    global mode_version
    mode_version += 1


cdef class Waiter:
    """A waiter in compiled code that is no fiber."""

    cpdef _unpark(self, value):
        """Handle that it is ready or closed; see `Fiber._unpark`."""
        raise NotImplementedError(f"{type(self).__name__} has no _unpark()")


cdef class Descriptor:
    """One descriptor: its number, its owner, its known readiness, and its waiters."""

    cdef readonly int fd
    cdef readonly object owner
    cdef public bint readable, hung_up, always_ready, short_read_drains
    cdef public int ended
    cdef long _mode
    # Whether urgent data were ever reported, for which the poller has no other event than for ordinary data.
    cdef bint _had_urgent
    # The count of switches at the last report that there are data to read.
    cdef unsigned long long _reported_at
    # The waiters of each direction: None, one waiter, or a list of several. Each wait touches them, and it is nearly
    # always one, for which a list would be two more places in memory.
    cdef object _readers, _writers

    # Repeats `_is_plain_tcp`.
    def __init__(self, int fd, owner):
        self.fd = fd
        self.owner = owner
        self.readable = True
        # After a hangup no further edge may come, so readiness is never forgotten again.
        self.hung_up = False
        self.always_ready = False
        self.ended = 0
        # The Python version has the reasons.
        self.short_read_drains = owner is not None and vt_is_plain_tcp(fd)

    @property
    def idle(self):
        return self._readers is None and self._writers is None

    @property
    def mode_is_known(self):
        return self._mode == mode_version

    cpdef waits(self):
        """Record that calls of the owner wait: its open file is in blocking mode, or it has a timeout."""
        self._mode = mode_version

    cpdef drained(self):
        """Record that a read has emptied the buffer: the next edge will report new data."""
        self.readable = self.hung_up

    cpdef enlist(self, int direction, waiter):
        if direction & READ:
            self._readers = _with(self._readers, waiter)
        else:
            self._writers = _with(self._writers, waiter)

    cpdef withdraw(self, int direction, waiter):
        if direction & READ:
            self._readers = _without(self._readers, waiter)
        else:
            self._writers = _without(self._writers, waiter)

    def directions_of(self, waiter):
        """Return the directions that `waiter` waits for here, for inspection from any OS thread."""
        sides = ((READ, self._readers), (WRITE, self._writers))
        return [direction for direction, waiting in sides if waiter in _listed(waiting)]

    cpdef report(self, int events):
        if events & HANGUP:
            self.hung_up = True
        if events & URGENT:
            self.short_read_drains = False
            self._had_urgent = True
        if events & (READ | HANGUP):
            self.readable = True
            self._unpark_readers(True)
        if events & WRITE:
            self._unpark_writers(True)

    def end(self, int directions):
        """Unpark the waiters for `directions`, which the owner has shut down."""
        if directions & READ:
            self.readable = True
            self._unpark_readers(True)
        if directions & WRITE:
            self._unpark_writers(True)

    def close(self):
        self._unpark_readers(CLOSED)
        self._unpark_writers(CLOSED)

    cdef int _unpark_readers(self, value) except -1:
        waiting, self._readers = self._readers, None
        return 0 if waiting is None else _unpark_all(waiting, value)

    cdef int _unpark_writers(self, value) except -1:
        waiting, self._writers = self._writers, None
        return 0 if waiting is None else _unpark_all(waiting, value)

    cdef bint _is_of(self, owner) except -1:
        if self.owner is None:
            return False
        if PyWeakref_CheckRef(self.owner):
            return vt_owns(self.owner, owner)
        return self.owner() is owner


cdef object _with(waiting, waiter):
    """Return the waiters `waiting` and `waiter`."""
    if waiting is None:
        return waiter
    if type(waiting) is not list:
        return [waiting, waiter]
    (<list>waiting).append(waiter)
    return waiting


cdef object _without(waiting, waiter):
    """Return the waiters `waiting` except `waiter`, which need not be one of them."""
    if waiting is waiter:
        return None
    if type(waiting) is list and waiter in <list>waiting:
        (<list>waiting).remove(waiter)
        return waiting or None
    return waiting


cdef list _listed(waiting):
    if waiting is None:
        return []
    return waiting if type(waiting) is list else [waiting]


cdef int _unpark_all(waiting, value) except -1:
    # All and not only the first: two readers may need different events of one descriptor, and each tries again.
    if type(waiting) is not list:
        return _unpark_waiter(waiting, value)
    for waiter in <list>waiting:
        _unpark_waiter(waiter, value)
    return 0


cdef int _unpark_waiter(waiter, value) except -1:
    if isinstance(waiter, Fiber):
        Fiber._unpark(<Fiber>waiter, value)
    elif isinstance(waiter, Waiter):
        (<Waiter>waiter)._unpark(value)
    else:
        waiter._unpark(value)
    return 0


cdef class Descriptors:
    """The descriptors of one scheduler; used on its OS thread only."""

    cdef object _poller
    cdef readonly Py_ssize_t waiting
    # Indexed by number. Borrowed references: `_entries` owns the entries.
    cdef dict _entries
    cdef PyObject **_places
    cdef Py_ssize_t _room
    # The count of switches of the scheduler at its last poll.
    cdef unsigned long long _polled_at
    # The descriptor of epoll, which needs no call before each wait, because a registration stays. -1: another poller.
    cdef int _epoll

    def __cinit__(self):
        self._entries = {}

    def __init__(self, poller):
        self._poller = poller
        self._epoll = poller.fileno() if VT_HAS_EPOLL and poller.name == "epoll" else -1

    def __dealloc__(self):
        PyMem_Free(self._places)

    cdef Descriptor _at(self, int fd):
        if fd < 0 or fd >= self._room or self._places[fd] is NULL:
            return None
        return <Descriptor>self._places[fd]

    cdef int _place(self, int fd, Descriptor entry) except -1:
        cdef Py_ssize_t room = self._room
        cdef PyObject **larger
        if fd >= room:
            room = max(2 * room, fd + 64)
            larger = <PyObject **>PyMem_Realloc(self._places, room * sizeof(PyObject *))
            if larger is NULL:
                raise MemoryError
            self._places = larger
            while self._room < room:
                larger[self._room] = NULL
                self._room += 1
        self._entries[fd] = entry
        self._places[fd] = <PyObject *>entry
        return 0

    cpdef Descriptor find(self, int fd, owner):
        """Return the entry of `owner`, if `fd` is registered and still belongs to it; else None."""
        cdef Descriptor entry = self._at(fd)
        return entry if entry is not None and entry._is_of(owner) else None

    cpdef Descriptor claim(self, int fd, owner):
        """Return the entry of `owner()`; create and register it if there is none."""
        cdef Descriptor entry = self.find(fd, owner())
        if entry is None:
            self.forget(fd)
            entry = self._register(Descriptor(fd, owner))
        return entry

    def borrow(self, int fd):
        """Return an entry for a caller that has only the number: the file that the number means now."""
        cdef Descriptor entry = self._at(fd)
        return self._register(Descriptor(fd, None)) if entry is None else entry

    cdef Descriptor _register(self, Descriptor entry):
        cdef int error
        if self._epoll >= 0:
            error = vt_epoll_add(self._epoll, entry.fd)
            # epoll refuses files that are always ready, such as regular files, by this error.
            entry.always_ready = error == EPERM
            if error and error != EPERM:
                raise OSError(error, os.strerror(error))
        else:
            try:
                self._poller.register(entry.fd)
            except PermissionError:
                entry.always_ready = True
        self._place(entry.fd, entry)
        return entry

    def enlist(self, Descriptor entry, int direction, waiter, *, bint by_number):
        """Queue `waiter` for `direction` (READ or WRITE); see the reference engine."""
        cdef int error
        if self._epoll < 0:
            (self._poller.rearm if by_number else self._poller.arm)(entry.fd, direction)
        elif by_number:
            error = vt_epoll_rearm(self._epoll, entry.fd)
            if error:
                raise OSError(error, os.strerror(error))
        entry.enlist(direction, waiter)
        self.waiting += 1

    cpdef withdraw(self, Descriptor entry, int direction, waiter):
        """Undo `enlist`; called after every wait, however it ended: a wait that stays counted hides a deadlock."""
        self.waiting -= 1
        entry.withdraw(direction, waiter)
        if entry.owner is None and entry.idle and self._at(entry.fd) is entry:
            self.forget(entry.fd)

    cpdef forget(self, int fd):
        """Drop the entry of `fd`, which is closed next or means another file now; unpark its waiters with CLOSED."""
        cdef Descriptor entry = self._at(fd)
        if entry is not None:
            self._places[fd] = NULL
            del self._entries[fd]
            if self._epoll >= 0:
                vt_epoll_remove(self._epoll, fd)
            else:
                self._poller.unregister(fd)
            entry.close()

    def get(self, fd):
        """Return the entry of number `fd` with any owner. Thread-safe."""
        return self._entries.get(fd)

    def forget_entry(self, Descriptor entry):
        """`forget`, unless the number belongs to a later entry now."""
        if self._at(entry.fd) is entry:
            self.forget(entry.fd)

    cpdef report(self, int fd, int events):
        """Handle an event of the poller: `fd` is ready."""
        cdef Descriptor entry = self._at(fd)
        if entry is not None:
            if events & (READ | HANGUP):
                entry._reported_at = self._polled_at
            entry.report(events)
