# The turns that an event loop gives to the scheduler: see the reference engine.


def stay_parked():
    """Refuse to withdraw the wait of the fiber that runs an event loop: the scheduler ends it."""
    return False


# Repeats `Scheduler.lend`.
cdef object _lend(Scheduler carrier, bint goes_on, bint polls):
    carrier._host = carrier.running
    carrier._host_is_next = carrier._host_is_called = False
    if not goes_on:
        carrier._turn_ends_at = INF
        carrier._turn_ends_at_switch = carrier.switches + SWITCHES_PER_POLL
    if polls:
        carrier._poll_at = -INF
    carrier._park(stay_parked, INF)
    carrier._host = None
    if carrier._host_is_called:
        return -1.0
    carrier._asleep = True
    if not carrier._none_is_ready() or carrier._inbox:
        return 0.0
    return None if carrier._host_patience < 0 else carrier._host_patience


# Repeats `Scheduler.call_host` and `Scheduler._queue_behind_host`.
cdef int _begin_call_of_host(Scheduler carrier, Fiber caller) except -1:
    carrier._suspend_tracing()
    carrier.running = None
    caller._greenlet = PyGreenlet_GetCurrent()
    if _is_turn_over(carrier):
        carrier.make_ready(caller)
    else:
        carrier.make_next(caller)
    if carrier._host is not None and not carrier._host_is_next:
        carrier._host_is_next = carrier._host_is_called = True
        carrier.make_next(carrier._host)
    return carrier._take_next(carrier.now())


cdef bint _is_turn_over(Scheduler carrier) except -1:
    return carrier.switches >= carrier._turn_ends_at_switch or carrier.now() >= carrier._turn_ends_at


# Repeats `Scheduler._poll_for_host`.
cdef bint _poll_for_host(Scheduler carrier, double seconds) except -1:
    """Poll without waiting, and end the turn instead of waiting, or if it has lasted for long."""
    # If no fiber waits for a descriptor, only a message is left to poll for, and the loop finds that as well.
    cdef bint any_event = carrier._poll(0.0) if seconds == 0 or carrier.descriptors.waiting > 0 else False
    cdef bint is_idle = seconds != 0 and not any_event
    cdef bint is_over = _is_turn_over(carrier)
    carrier._turn_ends_at = min(carrier._turn_ends_at, carrier.now() + SLICE)
    if (is_idle or is_over) and not carrier._host_is_next and not carrier._spawners:
        carrier._host_is_next = True
        carrier._host_patience = seconds
        carrier.make_next(carrier._host)
    return any_event
