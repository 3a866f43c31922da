# The scheduler of this OS thread, and the fiber that runs on it.


def become_carrier(Scheduler scheduler):
    """Register this OS thread as the carrier of `scheduler`."""
    global vt_here
    carriers[scheduler.ident] = scheduler
    vt_here = <PyObject *>scheduler


def cease_carrier():
    """Remove the registration of this OS thread as a carrier."""
    global vt_here
    vt_here = NULL
    carriers.pop(PyThread_get_thread_ident(), None)


def running():
    """Return the fiber that runs on this OS thread; None on a plain OS thread and inside the scheduler."""
    return None if vt_here is NULL else (<Scheduler>vt_here).running


cdef inline Fiber _here():
    """Return the fiber that runs on this OS thread; None if there is none."""
    return None if vt_here is NULL or (<Scheduler>vt_here).running is None else <Fiber>(<Scheduler>vt_here).running
