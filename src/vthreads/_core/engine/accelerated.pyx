# cython: language_level=3, binding=False, boundscheck=False, wraparound=False, initializedcheck=False
"""The engine compiled: the same contract as `reference.py`, which says what each part is for.

Kept line for line like it where that costs nothing. What differs: switches go through greenlet's C API, the run queue
of a first-in-first-out order is a ring, timers are a heap of doubles, and who runs here is a variable of the OS thread.
"""

from collections import deque
from math import inf
from sys import _getframe

from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF

from ..clock import MonotonicClock
from ..order import FifoOrder
from .descriptors import Descriptors
from .states import ABORTED as _ABORTED
from .states import LONGEST_WAIT as _LONGEST_WAIT
from .states import NOTHING as _NOTHING
from .states import SLICE as _SLICE
from .states import STUCK_AGAIN_AFTER as _STUCK_AGAIN_AFTER
from .states import SWITCHES_PER_POLL as _SWITCHES_PER_POLL
from .states import TIMED_OUT as _TIMED_OUT
from .states import State, in_a_frame, carriers as _carriers
from . import states

cdef extern from "greenlet/greenlet.h":
    ctypedef class greenlet.greenlet [object PyGreenlet, check_size ignore]:
        pass

    void PyGreenlet_Import() except *
    greenlet PyGreenlet_New(object run, greenlet parent)
    greenlet PyGreenlet_GetCurrent()
    object PyGreenlet_Switch(greenlet target, PyObject *args, PyObject *kwargs)

cdef extern from *:
    """
    #if defined(_MSC_VER)
    #define VT_THREAD __declspec(thread)
    #else
    #define VT_THREAD __thread
    #endif

    /* The scheduler of this OS thread; the registry of carriers keeps it alive. */
    static VT_THREAD PyObject *vt_here = NULL;

    #if defined(__linux__)
    #include <time.h>
    /* What time.monotonic() reads, without making a float of it. */
    static double vt_monotonic(void) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
    }
    #define VT_HAS_MONOTONIC 1
    #else
    static double vt_monotonic(void) { return 0.0; }
    #define VT_HAS_MONOTONIC 0
    #endif
    """
    PyObject *vt_here
    double vt_monotonic() nogil
    bint VT_HAS_MONOTONIC
    unsigned long PyThread_get_thread_ident()

PyGreenlet_Import()

cdef object ABORTED = _ABORTED
cdef object TIMED_OUT = _TIMED_OUT
cdef object NOTHING = _NOTHING
cdef object carriers = _carriers
cdef object NEW = State.NEW
cdef object READY = State.READY
cdef object RUNNING = State.RUNNING
cdef object PARKED = State.PARKED
cdef object ENDED = State.ENDED
cdef double INF = inf
cdef double SLICE = _SLICE
cdef double LONGEST_WAIT = _LONGEST_WAIT
cdef double STUCK_AGAIN_AFTER = _STUCK_AGAIN_AFTER
cdef int SWITCHES_PER_POLL = _SWITCHES_PER_POLL


# --- the run queue


cdef class RunQueue:
    """Fibers in the order in which they became ready: a ring that grows."""

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
            raise IndexError("nobody is ready")
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


# --- timers


cdef class Timer:
    """One entry of the heap; cancelled by dropping its owner."""

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
        """Nothing happens if it expired already."""
        cdef Timer entry
        cdef Py_ssize_t i
        if timer.owner is None:
            return
        timer.owner = None
        self._cancelled += 1
        # Most timeouts are cancelled long before they are due; left in place they would fill the heap.
        if self._cancelled > 64 and self._cancelled * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry.owner is not None]
            for i in range(len(self._heap) // 2 - 1, -1, -1):
                self._sink(i)
            self._cancelled = 0

    cpdef double due(self):
        """When the earliest timer is due; `inf` without one."""
        while self._heap and (<Timer>self._heap[0]).owner is None:
            self._pop()
            self._cancelled -= 1
        return (<Timer>self._heap[0]).when if self._heap else INF

    cpdef bint expire(self, double now) except -1:
        """Expire all that are due, earliest first; tell whether there was one."""
        cdef Timer timer
        cdef bint any_expired = False
        while self.due() <= now and self._heap:
            timer = self._pop()
            owner, timer.owner = timer.owner, None
            owner.expire()
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


# --- fibers


cdef class Fiber:
    """What the scheduler switches. It stays on its scheduler for life: greenlets cannot change their OS thread."""

    cdef public Scheduler scheduler
    cdef public object context, state, _greenlet, _abort, _wake, waits_for
    cdef public double parked_at
    cdef public bint pending

    def __init__(self, Scheduler scheduler, context):
        self.scheduler = scheduler
        self.context = context
        self.state = NEW
        self.pending = False
        self._greenlet = None
        self._abort = None
        self._wake = NOTHING
        self.waits_for = None
        self.parked_at = -INF

    def run(self):
        """What the fiber does. Must not raise."""
        raise NotImplementedError(f"{type(self).__name__} brings its own run()")

    def frame(self):
        """The innermost frame of the fiber, wherever it is; None before its first run and after its end."""
        if self._greenlet is PyGreenlet_GetCurrent() or self.scheduler.running is self:
            # Parked or not, it is the one whose greenlet runs: whoever finds nobody ready polls on its own stack.
            return _getframe(0)
        return None if self._greenlet is None else self._greenlet.gr_frame

    # --- checkpoints

    cpdef check(self):
        """The beginning of every checkpoint: raise what is pending, and yield after a long run."""
        cdef Scheduler scheduler
        if self.pending:
            self.raise_due()
        scheduler = self.scheduler
        if scheduler.now() >= scheduler.slice_end:
            scheduler.yield_now()
            if self.pending:
                self.raise_due()

    cpdef give_way(self):
        """Let others run after a long run, for calls that are no checkpoints but may be all that a loop does."""
        cdef Scheduler scheduler = self.scheduler
        if scheduler.now() >= scheduler.slice_end:
            scheduler.yield_now()

    cpdef yield_now(self):
        """A checkpoint that lets every ready fiber run once."""
        if self.pending:
            self.raise_due()
        self.scheduler.yield_now()
        if self.pending:
            self.raise_due()

    def park(self, abort=None, timeout=None):
        """Park, after `check()`: what the fiber was unparked with, or TIMED_OUT after `timeout` seconds."""
        cdef Scheduler scheduler = self.scheduler
        cdef double deadline = INF if timeout is None else scheduler.now() + <double>timeout
        if self.pending:
            return self.park_pending(abort, deadline)
        answer = scheduler.park(abort, deadline)
        if answer is ABORTED:
            self.raise_aborted()
        return answer

    def raise_due(self):
        """Raise what has to be raised now, if anything: `pending` says that there may be something."""

    def park_pending(self, abort, double deadline):
        """`park` while `pending` is set."""
        return self.scheduler.park(abort, deadline)

    def raise_aborted(self):
        """Raise what `park` was aborted for."""

    # --- being unparked

    def may_be_roused(self):
        """Asked on the fiber's OS thread before `rouse` takes effect."""
        return True

    cpdef unpark(self, value=True):
        """Make ready, with `value` as the answer of `park`. Thread-safe; true unless it was no longer parked."""
        cdef Scheduler scheduler = self.scheduler
        if PyThread_get_thread_ident() != scheduler.ident:
            scheduler.post(self._unpark_here, value)
            return True
        return self._unpark_here(value)

    cpdef _unpark_here(self, value):
        if self.state is PARKED:
            self._wake = value
            self.scheduler.make_ready(self)
            return True
        if self._wake is NOTHING and (self.state is RUNNING or self.state is READY):
            # It stands in a queue but has not parked yet: its park will return at once.
            self._wake = value
            return True
        return False

    cpdef _take_wake(self):
        wake, self._wake = self._wake, NOTHING
        return wake

    def rouse(self):
        """Let the fiber look after itself: if its wait can be withdrawn, `park` returns ABORTED. Thread-safe."""
        if PyThread_get_thread_ident() == self.scheduler.ident:
            self._rouse_here()
        else:
            self.scheduler.post(self._rouse_here)

    def _rouse_here(self):
        if self.state is PARKED and self.may_be_roused():
            self._withdraw(ABORTED)

    cpdef expire(self):
        """The deadline of `park` has come."""
        if self.state is PARKED:
            self._withdraw(TIMED_OUT)

    cdef _withdraw(self, answer):
        if self._abort is None or self._abort():
            self._wake = answer
            self.scheduler.make_ready(self)


# --- the scheduler


cdef class Scheduler:
    """Run queue, timers, poller and inbox of one carrier; its arguments are those of the reference engine."""

    cdef readonly unsigned long ident
    cdef readonly object clock, poller
    cdef readonly Timers timers
    cdef readonly object descriptors
    cdef public object running, observer
    cdef public Py_ssize_t outside
    cdef public double slice_end
    cdef readonly bint closed
    # For the layers above: see the reference engine.
    cdef public object background, threads, daemons, root
    cdef object _is_stuck, _when_stuck, _when_signalled
    cdef bint _real_time
    cdef object _clock_now
    cdef readonly object _ready
    cdef RunQueue _fifo
    cdef readonly list _spawners
    cdef object _inbox
    cdef bint _asleep
    cdef int _switches
    cdef double _poll_at
    cdef greenlet _starter
    cdef readonly list _pool
    cdef Py_ssize_t _pool_size
    cdef Fiber _next, _chosen
    cdef object _life
    cdef object __weakref__

    def __init__(self, poller, clock, order, is_stuck, when_stuck, when_signalled):
        self.ident = PyThread_get_thread_ident()
        self.clock = clock
        self.poller = poller
        self.timers = Timers()
        self.descriptors = Descriptors(poller)
        self.running = None
        self.outside = 0
        self.observer = None
        self.slice_end = INF
        self.closed = False
        self._is_stuck = is_stuck
        self._when_stuck = when_stuck
        self._when_signalled = when_signalled
        self._real_time = VT_HAS_MONOTONIC and type(clock) is MonotonicClock
        self._clock_now = clock.now
        self._fifo = RunQueue() if type(order) is FifoOrder else None
        self._ready = order.run_queue() if self._fifo is None else self._fifo
        # Who runs before anyone else, the latest first: above all fibers whose spawn started another one.
        self._spawners = []
        self._inbox = deque()
        self._asleep = False
        self._switches = 0
        self._poll_at = -INF
        self._starter = PyGreenlet_New(self._start_greenlets, PyGreenlet_GetCurrent())
        self._pool = []
        self._pool_size = states.POOL_SIZE
        self._life = in_a_frame(self._carry)
        self._next = None

    cdef double now(self) except? -1:
        return vt_monotonic() if self._real_time else self._clock_now()

    # --- from any OS thread

    def post(self, function, *args):
        """Have `function(*args)` called on the carrier, between two switches. It must not park or raise."""
        self._inbox.append((function, args))
        if self._asleep:
            self.poller.interrupt()

    # --- on the carrier

    def adopt(self, Fiber fiber):
        """The code that is running becomes `fiber`."""
        fiber.state = RUNNING
        self.running = fiber
        self.slice_end = self.now() + SLICE

    cpdef make_ready(self, Fiber fiber):
        """Queue a parked or new fiber."""
        if self.observer is not None:
            self.observer.readied(fiber)
        fiber.state = READY
        if self._fifo is not None:
            self._fifo.append(fiber)
        else:
            self._ready.append(fiber)

    def make_next(self, Fiber fiber):
        """Let a new fiber run at the next switch, before anyone else."""
        fiber.state = READY
        self._spawners.append(fiber)

    cpdef start(self, Fiber fiber):
        """Run a new fiber at once, up to its first park; then the caller goes on, before anyone else."""
        cdef Fiber spawner = self.running
        spawner.state = READY
        spawner._greenlet = PyGreenlet_GetCurrent()
        self._spawners.append(spawner)
        self._chosen = fiber
        self._switch()

    cpdef park(self, abort=None, double deadline=inf):
        """Run others until the running fiber is unparked; the value it was unparked with, TIMED_OUT or ABORTED."""
        cdef Fiber fiber = self.running
        cdef Timer timer = None
        if fiber._wake is NOTHING:
            fiber._abort = abort
            fiber._greenlet = PyGreenlet_GetCurrent()
            fiber.parked_at = self.now()
            fiber.state = PARKED
            if self.observer is not None:
                self.observer.parked(fiber)
            if deadline < INF:
                timer = self.timers.add(deadline, fiber)
            self._take_next()
            self._switch()
            fiber._abort = None
            if timer is not None:
                self.timers.cancel(timer)
        return fiber._take_wake()

    cpdef yield_now(self):
        """Let every fiber that is ready run once."""
        cdef Fiber fiber = self.running
        fiber._greenlet = PyGreenlet_GetCurrent()
        self.make_ready(fiber)
        self._take_next()
        self._switch()

    def close(self):
        """End the pooled greenlets and give the poller back. No fiber but the running one may be left."""
        self.closed = True
        self._next = None
        for pooled in self._pool:
            pooled.parent = PyGreenlet_GetCurrent()
            pooled.switch()
        self._pool.clear()
        self._starter.parent = PyGreenlet_GetCurrent()
        self._starter.switch(None)
        self.poller.close()

    # --- switching

    cdef bint _nobody_is_ready(self) except -1:
        return self._fifo._count == 0 if self._fifo is not None else not len(self._ready)

    # Handed on by `_chosen` and not as an argument: whoever switches away holds its arguments until it comes back, and
    # must not keep the other fiber alive.

    cdef int _take_next(self) except -1:
        """Choose who runs next; poll until there is somebody."""
        cdef double now
        # Nobody runs while this looks for the next one: a signal handler or finalizer in here is on no fiber.
        self.running = None
        self._switches += 1
        now = self.now()
        if self._switches >= SWITCHES_PER_POLL or now >= self._poll_at:
            self._look_outside(0.0)
        if self._inbox:
            self._empty_inbox()
        if self._spawners:
            self._chosen = self._spawners.pop()
            return 0
        if self._nobody_is_ready():
            while self._nobody_is_ready():
                self._idle()
                if self._spawners:
                    self.slice_end = self.now() + SLICE
                    self._chosen = self._spawners.pop()
                    return 0
            now = self.now()
        self.slice_end = now + SLICE
        self._chosen = self._fifo.popleft() if self._fifo is not None else self._ready.popleft()
        return 0

    cdef int _switch(self) except -1:
        """Switch to the one that was chosen."""
        cdef Fiber fiber = self._chosen
        cdef greenlet target = fiber._greenlet
        cdef bint is_new = False
        if self.observer is not None:
            self.observer.runs(fiber)
        self._chosen = None
        if target is None:
            is_new = not self._pool
            target = PyGreenlet_New(self._life, self._starter) if is_new else self._pool.pop()
            target.gr_context = fiber.context
            self._next = fiber
        fiber.state = RUNNING
        self.running = fiber
        fiber = None
        if is_new:
            self._starter.switch(target)
        elif target is not PyGreenlet_GetCurrent():
            PyGreenlet_Switch(target, NULL, NULL)
        return 0

    def _start_greenlets(self, target):
        """The life of the starter: it starts every new greenlet, and takes over from each that ends."""
        while target is not None:
            target = target.switch()

    def _carry(self):
        """The life of a greenlet: run fiber after fiber; the greenlet to go on with when it ends."""
        cdef Fiber fiber
        me = PyGreenlet_GetCurrent()
        while self._next is not None:
            fiber, self._next = self._next, None
            fiber.run()
            fiber.state = ENDED
            if self.observer is not None:
                self.observer.ended(fiber)
            fiber._greenlet = None
            fiber = None
            if len(self._pool) >= self._pool_size:
                self._take_next()
                return self._prepared()
            self._pool.append(me)
            self._take_next()
            self._switch()

    cdef greenlet _prepared(self):
        """The greenlet of the one that was chosen, ready to take over from one that ends."""
        cdef Fiber fiber = self._chosen
        if self.observer is not None:
            self.observer.runs(fiber)
        target = fiber._greenlet
        self._chosen = None
        if target is None:
            target = self._pool.pop()
            target.gr_context = fiber.context
            self._next = fiber
        fiber.state = RUNNING
        self.running = fiber
        return target

    # --- the outside world

    cdef int _idle(self) except -1:
        """Nobody is ready: wait for a timer, a descriptor or a message."""
        cdef double due = self.timers.due()
        cdef bint outside = self.outside > 0 or self.descriptors.waiting > 0
        cdef bint heard
        if due == INF and not outside and not self._inbox and self._is_stuck():
            # An OS thread may be about to start, which nobody can see yet.
            if not self._look_outside(STUCK_AGAIN_AFTER) and self._nobody_is_ready() and self._is_stuck():
                self._when_stuck()
            return 0
        patience = self.clock.patience(due, outside)
        heard = self._look_outside(-1.0 if patience is None else patience)
        # Without a timer the wait may still end for nothing: a late byte in the wakeup pipe, a signal.
        if not heard and self._nobody_is_ready() and due < INF:
            self.clock.jump(due)
            self.timers.expire(self.now())
        return 0

    cdef bint _look_outside(self, double seconds) except -1:
        """Poll for up to `seconds` (negative: until something comes), then see to timers and messages."""
        cdef double now
        self._asleep = True
        # Who posts looks at the flag after appending: either it is seen here, or it interrupts the wait.
        if self._inbox:
            seconds = 0
        elif seconds > LONGEST_WAIT:
            seconds = LONGEST_WAIT
        try:
            events = self.poller.wait(None if seconds < 0 else seconds)
        except BaseException as error:  # of no concern to whichever fiber polled; told to the layer above
            events = []
            self._when_signalled(error)
        self._asleep = False
        for fd, ready in events:
            self.descriptors.report(fd, ready)
        heard = bool(events) or bool(self._inbox)
        self._empty_inbox()
        now = self.now()
        self._switches = 0
        self._poll_at = now + SLICE
        return self.timers.expire(now) or heard

    cdef int _empty_inbox(self) except -1:
        # Only what is there now: a message may post another one.
        for _ in range(len(self._inbox)):
            function, args = self._inbox.popleft()
            function(*args)
        return 0


# --- who runs here


def become_carrier(Scheduler scheduler):
    """This OS thread runs the fibers of `scheduler` from now on."""
    global vt_here
    carriers[scheduler.ident] = scheduler
    vt_here = <PyObject *>scheduler


def cease_carrier():
    """This OS thread is no carrier any more."""
    global vt_here
    vt_here = NULL
    carriers.pop(PyThread_get_thread_ident(), None)


def running():
    """The fiber that runs on this OS thread; None on a plain OS thread and inside the scheduler."""
    return None if vt_here is NULL else (<Scheduler>vt_here).running
