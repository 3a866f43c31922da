# The watch of a socket: servers arm it twice for each request.


cdef class Watch(Waiter):
    cdef object _sock, _call
    cdef Scheduler _scheduler
    cdef Descriptor _entry
    cdef bint _is_quiet
    cdef public double arrived_at

    def __init__(self, sock, Scheduler scheduler not None, call):
        self._sock = sock
        self._call = call
        self._scheduler = scheduler
        self._entry = None
        self._is_quiet = False
        self.arrived_at = INF

    @cython.binding(True)
    def arm(self, bint quiet=False):
        cdef Descriptors descriptors = self._scheduler.descriptors
        cdef Descriptor entry
        cdef int fd
        self.arrived_at = INF
        self._is_quiet = quiet
        if self._entry is None:
            fd = _fileno(self._sock)
            entry = descriptors.find(fd, self._sock)
            if entry is None:
                entry = descriptors.claim(fd, ref(self._sock))
            if entry.hung_up:
                return False
            if descriptors._epoll < 0:
                descriptors._poller.arm(fd, READ)
            entry.enlist(READ, self)
            descriptors.waiting += 1
            self._entry = entry
        return True

    @cython.binding(True)
    def arm_for_data(self):
        return Watch.arm(self) and not self._entry.readable

    @cython.binding(True)
    def disarm(self):
        self._disarm()

    cdef int _disarm(self) except -1:
        cdef Descriptor entry = self._entry
        self._entry = None
        if entry is not None:
            self._scheduler.descriptors.withdraw(entry, READ, self)
        return 0

    cpdef _unpark(self, value):
        self._disarm()
        if value is not CLOSED:
            self.arrived_at = self._scheduler.now()
            if not self._is_quiet:
                self._call()
        return True
