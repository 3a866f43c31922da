# The scheduler of one carrier.

from collections import deque

from vthreads._core.clock import MonotonicClock
from vthreads._core.engine.states import landed
from vthreads._core.order import FifoOrder

# The size of the shared buffer for reads.
cdef enum:
    SCRATCH = 65536


@cython.final
cdef class Scheduler:
    """Run queue, timers, poller and inbox of one carrier; its arguments are those of the reference engine."""

    cdef public unsigned long ident
    cdef readonly object clock, poller, _ready, _inbox
    cdef readonly Timers timers
    cdef readonly Descriptors descriptors
    # None for another poller than epoll.
    cdef EpollEvents _events
    cdef char *_scratch
    cdef public object running
    # The observer and its methods, which are looked up once.
    cdef object _observer, _observe_parked, _observe_readied, _observe_runs, _observe_ended
    # Whether trace and profile functions are suspended.
    cdef bint _is_untraced
    cdef public Py_ssize_t outside
    cdef public double slice_end
    cdef readonly double switched_at
    cdef readonly bint closed
    # Set by the modules above: see the contract.
    cdef public object background, threads, daemons, root, placement, when_idle
    cdef public object when_contended, when_forking
    cdef object _is_deadlocked, _when_deadlocked, _when_signalled, _clock_now
    cdef bint _real_time, _asleep, _host_is_next, _host_is_called, _is_quiet
    cdef RunQueue _fifo
    cdef readonly list _spawners
    cdef readonly unsigned long long switches
    cdef unsigned long long _poll_at_switch, _turn_ends_at_switch
    cdef double _poll_at, _looked_at, _contended_at, _turn_ends_at, _host_patience
    # For an event loop that runs the scheduler: see the contract.
    cdef public object when_ready, when_landed, loop_calls
    cdef Fiber _host
    # For other OS threads: see the contract.
    cdef readonly greenlet idle_on
    cdef readonly GreenletPool _pool
    # The fiber that is being switched to, until it runs.
    cdef readonly Fiber arriving
    # The fiber that has ended, until the next one has landed.
    cdef Fiber _ended
    # The place of the last spawn, and its spawn sites.
    cdef object _site_code, _site_inherited
    cdef int _site_instruction
    cdef tuple _sites
    cdef object __weakref__

    def __cinit__(self):
        self._scratch = <char *>PyMem_Malloc(SCRATCH)
        if self._scratch is NULL:
            raise MemoryError

    def __dealloc__(self):
        PyMem_Free(self._scratch)

    def __init__(self, poller, clock, order, is_deadlocked, when_deadlocked, when_signalled):
        # Fields that are not set here begin as 0, False or None.
        self.ident = PyThread_get_thread_ident()
        self.clock, self.poller = clock, poller
        self.timers, self.descriptors = Timers(), Descriptors(poller)
        self._events = EpollEvents(poller, self.descriptors._epoll) if self.descriptors._epoll >= 0 else None
        self.slice_end = self._turn_ends_at = INF
        self._poll_at = self._contended_at = self.switched_at = -INF
        self._is_deadlocked, self._when_deadlocked = is_deadlocked, when_deadlocked
        self._when_signalled = when_signalled
        self._real_time = VT_HAS_MONOTONIC and type(clock) is MonotonicClock
        self._clock_now = clock.now
        self._fifo = RunQueue() if type(order) is FifoOrder else None
        self._ready = order.run_queue() if self._fifo is None else self._fifo
        # Fibers that run before all others, latest first: mostly fibers whose spawn started another one. A spawn is
        # like a call, so the innermost spawner goes on first.
        self._spawners = []
        self._inbox, self._pool = deque(), GreenletPool(self._carry)

    cdef double now(self) except? -1:
        return vt_monotonic() if self._real_time else self._clock_now()

    @property
    def observer(self):
        return self._observer

    @observer.setter
    def observer(self, observer):
        methods = (None,) * 4
        if observer is not None:
            methods = observer.parked, observer.readied, observer.runs, observer.ended
        self._observe_parked, self._observe_readied, self._observe_runs, self._observe_ended = methods
        self._observer = observer

    # --- from any OS thread

    def post(self, function, *args):
        """Call `function(*args)` on the carrier, between two switches. It must not park or raise. Thread-safe."""
        self._inbox.append((function, args))
        if self._asleep and self._events is not None:
            self._events.interrupt()
        elif self._asleep:
            self.poller.interrupt()

    # --- on the carrier

    def adopt(self, Fiber fiber):
        """Make the running code the code of `fiber`."""
        fiber.state = RUNNING
        self.running = fiber
        self.switched_at = vt_monotonic()
        self.slice_end = self.now() + SLICE

    cpdef int make_ready(self, Fiber fiber) except -1:
        """Queue a parked or new fiber."""
        if self._observer is not None:
            self._observe_readied(fiber)
        fiber.state = READY
        if self._fifo is not None:
            self._fifo.append(fiber)
        else:
            self._ready.append(fiber)
        if self.when_ready is not None and self._host is None:
            self.when_ready()
        return 0

    cpdef make_next(self, Fiber fiber):
        """Run `fiber` at the next switch, before all others."""
        fiber.state = READY
        self._spawners.append(fiber)

    cpdef start(self, Fiber fiber):
        """Run a new fiber at once, up to its first park; then the caller continues, before all others."""
        cdef Fiber spawner = self.running
        cdef double due = self._begin_start(spawner, fiber)
        self._switch(<PyObject *>spawner._greenlet)
        self._is_quiet = fiber.state is ENDED and self.timers.due() >= due
        self._land()

    cdef double _begin_start(self, Fiber spawner, Fiber fiber) except? -1:
        self._suspend_tracing()
        self.running = None
        spawner.state = READY
        spawner._greenlet = PyGreenlet_GetCurrent()
        self._spawners.append(spawner)
        self.arriving = fiber
        self._is_quiet = True
        return self.timers.due()

    def park(self, abort=None, double deadline=inf):
        """Run others until the running fiber is unparked; return the value of `_unpark`, TIMED_OUT or ABORTED."""
        return self._park(abort, deadline)

    # A switch copies the C stack of the fiber, and a parked fiber keeps the copy. So the functions that are on the stack
    # during a switch have small frames: what they do before and after it is in other functions, and `setup.py` keeps the
    # compiler from putting a function into its only caller.

    cdef object _park(self, abort, double deadline):
        # Unchecked, because a checked cast walks the bases of the class at each switch. Only fibers run or are ready.
        cdef Fiber fiber = <Fiber>self.running
        cdef Timer timer
        if self.when_forking is not None and self._has_forked():
            return fiber._scheduler._park(abort, deadline)
        timer = self._begin_wait(fiber, abort, deadline)
        if fiber.state is not RUNNING:
            self._switch(<PyObject *>fiber._greenlet)
        return self._end_wait(fiber, timer)

    cdef bint _has_forked(self) except -1:
        return self.when_forking()

    cdef Timer _begin_wait(self, Fiber fiber, abort, double deadline):
        """Choose the fiber that runs next: it is `fiber` itself, still in state RUNNING, if it was unparked before."""
        cdef Timer timer = None
        cdef double now
        self._suspend_tracing()
        self.running = None
        fiber._has_begun_to_wait = False
        # Read the clock before the check: it may be Python code, during which a finalizer may unpark the fiber.
        now = self.now()
        if fiber._answer is not NOTHING:
            self.arriving = fiber
            return None
        fiber._abort = abort
        fiber._greenlet = PyGreenlet_GetCurrent()
        fiber._parked_at, fiber._parked_until = now, deadline
        fiber.state = PARKED
        if self._observer is not None:
            self._observe_parked(fiber)
        if deadline < INF:
            timer = self.timers.add(deadline, fiber)
        self._take_next(now)
        return timer

    cdef object _end_wait(self, Fiber fiber, Timer timer):
        # Clear this wait before the fiber runs: foreign code may park it again before this returns.
        if timer is not None:
            self.timers.cancel(timer)
        fiber._abort = None
        answer = Fiber._take_answer(fiber)
        self._land()
        return answer

    def lend(self, bint goes_on=False, bint polls=True):
        """Run others until it is the turn of the event loop that the running fiber runs: see the reference engine."""
        return _lend(self, goes_on, polls)

    cpdef int call_host(self) except -1:
        """Run the fiber that called `lend`, up to its next park: see the reference engine."""
        cdef Fiber fiber = self.running
        if self.when_forking is not None and self._has_forked():
            return 0
        _begin_call_of_host(self, fiber)
        self._switch(<PyObject *>fiber._greenlet)
        return self._land()

    def _yield_now(self):
        """Run every ready fiber once."""
        self._yield()

    cdef int _yield(self) except -1:
        cdef PyObject *here = self._begin_yield()
        if here is NULL:
            return 0
        self._switch(here)
        return self._land()

    cdef PyObject *_begin_yield(self) except? NULL:
        """Choose the fiber that runs next; return the greenlet, which the queued fiber keeps alive, or NULL to stay."""
        cdef Fiber fiber = <Fiber>self.running
        if self.when_forking is not None and self._has_forked():
            return NULL
        self._suspend_tracing()
        self.running = None
        fiber._greenlet = PyGreenlet_GetCurrent()
        Scheduler.make_ready(self, fiber)
        self._take_next(self.now())
        return <PyObject *>fiber._greenlet

    cdef int _suspend_tracing(self) except -1:
        if not self._is_untraced:
            self._is_untraced = vt_suspend_tracing(False)
        return 0

    def suspend_tracing(self):
        """Suspend the trace and profile functions of this OS thread, also those set meanwhile, until a fiber lands."""
        if not self._is_untraced:
            self._is_untraced = vt_suspend_tracing(True)

    def close(self):
        """End the pooled greenlets and close the poller. No fiber except the running one may be left."""
        self.closed = True
        self._pool.close()
        self.poller.close()

    # --- switching

    cdef bint _none_is_ready(self) except -1:
        return self._fifo._count == 0 if self._fifo is not None else not len(self._ready)

    # The three parts of a switch are the same as in the reference engine. The fiber is passed by `arriving` and not as
    # an argument: the leaving fiber holds its arguments until it returns, and must not keep the other fiber alive.

    cdef int _take_next(self, double now) except -1:
        """Store in `arriving` the fiber that runs next; poll until there is one."""
        self.switches += 1
        self.switched_at = now if self._real_time else vt_monotonic()
        if self.switches >= self._poll_at_switch or now >= self._poll_at:
            self._look_outside(0.0)
        if self._inbox:
            self._empty_inbox()
        if self._spawners:
            self.arriving = self._spawners.pop()
            return 0
        if self._none_is_ready():
            self.idle_on = PyGreenlet_GetCurrent()
            while self._none_is_ready():
                self._idle()
                if self._spawners:
                    self.idle_on = None
                    self.switched_at = vt_monotonic()
                    self.slice_end = self.now() + SLICE
                    self.arriving = self._spawners.pop()
                    return 0
            self.idle_on = None
            if self._inbox:
                self._empty_inbox()
            now = max(now, self._looked_at)  # the poll has read the clock after its wait
            self.switched_at = now if self._real_time else vt_monotonic()
        self.slice_end = now + SLICE if self.when_forking is None else -INF
        self.arriving = <Fiber>(self._fifo.popleft() if self._fifo is not None else self._ready.popleft())
        return 0

    cdef int _switch(self, PyObject *here) except -1:
        """Switch from the greenlet `here` to the chosen fiber, which lands there; return when another switches back."""
        cdef greenlet target = self._target()
        if <PyObject *>target is not here:
            # Without arguments, because a tuple for them would be an allocation.
            PyGreenlet_Switch(target, NULL, NULL)
        return 0

    cdef greenlet _target(self):
        if self._observer is not None:
            self._observe_runs(self.arriving)
        return self._pool.take() if self.arriving._greenlet is None else <greenlet>self.arriving._greenlet

    cdef int _land(self) except -1:
        """The fiber that was switched to runs from here on."""
        cdef Fiber fiber = self.arriving
        cdef bint is_quiet = self._is_quiet
        self.arriving = None
        self._is_quiet = False
        fiber.state = RUNNING
        self.running = fiber
        if self.when_landed is not None:
            self.when_landed(fiber)
        if self._is_untraced:
            self._is_untraced = False
            vt_resume_tracing()
        if self._ended is not None:
            self._release_ended_in(fiber)
        if self.when_ready is not None and self._host is None and not is_quiet:
            self.when_ready()
        if vt_is_traced():
            landed()
        return 0

    cdef int _release_ended_in(self, Fiber fiber) except -1:
        # A new thread may have been unparked already, by the release of the permit that it waited for. Keep that answer
        # while the code below runs, which may park and would take it.
        answer = Fiber._take_answer(fiber)
        self._release_ended()
        if answer is not NOTHING:
            fiber._answer = answer
        return 0

    cdef int _release_ended(self) except -1:
        """Drop the fiber that has ended, and the objects that only it referred to: any code may run, and may park."""
        cdef Fiber ended
        ended, self._ended = self._ended, None
        if ended is not None:
            ended._drop_references()
        return 0

    def _carry(self):
        """The code of a greenlet: run fiber after fiber. It ends when it is switched to without a fiber to run."""
        cdef Fiber fiber
        me = PyGreenlet_GetCurrent()
        while self.arriving is not None:
            fiber = self.arriving
            self._land_in(me)
            fiber._run()
            self._end(fiber)
            # Choosing the next fiber may take long: do not keep this one alive.
            fiber = None
            self._pool.keep(me)
            self._take_next(self.now())
            self._switch(<PyObject *>me)

    cdef int _land_in(self, greenlet me) except -1:
        cdef Fiber fiber = self.arriving
        self._land()
        # Set from inside: greenlet assumes that a suspended greenlet without a Python frame runs on another OS thread,
        # and refuses to set its context.
        if fiber._context is not None or vt_has_context():
            me.gr_context = fiber._context
        return 0

    cdef int _end(self, Fiber fiber) except -1:
        self._suspend_tracing()
        self.running = None
        fiber.state = ENDED
        if self._observer is not None:
            self._observe_ended(fiber)
        fiber._greenlet = None
        self._ended = fiber
        return 0

    # --- events from outside

    cdef int _idle(self) except -1:
        """Wait for a timer, a descriptor or a message, because no fiber is ready."""
        cdef double due, patience, wait, began
        cdef bint outside, any_event
        if self._ended is not None:
            # It may take long until a fiber lands, so free the ended fiber here. Code that this runs cannot wait, but
            # may make a fiber ready.
            return self._release_ended()
        if self.when_idle is not None and self.when_idle():
            return 0
        due = self.timers.due()
        outside = self.outside > 0 or self.descriptors.waiting > 0
        if self._host is not None and self.loop_calls:
            outside = True
        if due == INF and not outside and not self._inbox and self._is_deadlocked():
            # An OS thread may be about to start, which is not visible yet. So check again after a moment.
            if not self._look_outside(DEADLOCK_AGAIN_AFTER) and self._none_is_ready() and self._is_deadlocked():
                self._when_deadlocked()
            return 0
        patience = wait = self._patience(due, outside)
        if self._pool.may_shrink():
            # End the poll early to shrink the pool of greenlets.
            wait = min(wait, max(0.0, self._pool.shrinks_at - vt_monotonic()))
        if contended and self.when_contended is not None:
            wait = min(wait, max(0.0, self._contended_at - vt_monotonic()))
        began = vt_monotonic() if due < INF else 0.0
        any_event = self._look_outside(-1.0 if wait == INF else wait)
        # The wait may also end early without an event: by these limits, a late byte in the wakeup pipe, or a signal.
        if not any_event and due < INF and vt_monotonic() - began >= patience and self._none_is_ready():
            # The next poll expires the timers, after what came from outside before the jump.
            self.clock.jump(due)
        return 0

    cdef double _patience(self, double due, bint outside) except -1:
        """Return how many seconds, up to `due`, the clock allows for events from outside."""
        if self._real_time:
            return INF if due == INF else max(0.0, due - vt_monotonic())
        seconds = self.clock.patience(due, outside)
        return INF if seconds is None else seconds

    cdef bint _look_outside(self, double seconds) except -1:
        """Poll for up to `seconds` (negative: until an event), then handle timers and messages."""
        cdef double now
        cdef bint any_event = False
        self._asleep = True
        # `post` reads the flag after appending. So either its message is seen here, or it interrupts the wait.
        if self._inbox:
            seconds = 0
        elif seconds > LONGEST_WAIT:
            seconds = LONGEST_WAIT
        try:
            any_event = self._poll(seconds) if self._host is None else _poll_for_host(self, seconds)
        except BaseException as error:  # does not concern the fiber that polls: passed on
            self._when_signalled(error)
        self._asleep = self.when_ready is not None
        any_event = any_event or bool(self._inbox)
        self._empty_inbox()
        now = self._looked_at = self.now()
        self._poll_at_switch = self.switches + SWITCHES_PER_POLL
        self._poll_at = now + SLICE
        if self._pool.may_shrink() and vt_monotonic() >= self._pool.shrinks_at:
            self._pool.shrink(vt_monotonic())
        if contended and self.when_contended is not None and vt_monotonic() >= self._contended_at:
            self._contended_at = vt_monotonic() + <double>self.when_contended()
        return self.timers.expire(now) or any_event

    cdef bint _poll(self, double seconds) except -1:
        """Wait for events and report them; return whether there was one."""
        self.descriptors._polled_at = self.switches
        if self._events is not None:
            self._events.wait(seconds)
            self._asleep = self.when_ready is not None
            return self._events.report(self.descriptors)
        events = self.poller.wait(None if seconds < 0 else seconds)
        self._asleep = self.when_ready is not None
        for fd, ready in events:
            self.descriptors.report(fd, ready)
        return bool(events)

    cdef int _empty_inbox(self) except -1:
        # Only the current messages: a message may post another one each time, and the fibers would never run.
        for _ in range(len(self._inbox)):
            function, args = self._inbox.popleft()
            function(*args)
        return 0
