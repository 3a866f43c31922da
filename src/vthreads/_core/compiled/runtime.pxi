# The public checkpoint, and the names of the readable core that its compiled parts use.


def set_core_names(
    *, thread_type, group_type, group_open, future_type, future_running, future_finished, futures_lock, statistics
):
    global VirtualThread, ThreadGroup, OPEN, Future, FUTURE_RUNNING, FINISHED, changing_futures, semaphore_statistics
    VirtualThread, ThreadGroup, OPEN = thread_type, group_type, group_open
    Future, FUTURE_RUNNING, FINISHED, changing_futures = future_type, future_running, future_finished, futures_lock
    semaphore_statistics = statistics


@cython.binding(True)
def checkpoint():
    cdef Fiber fiber = _here()
    if fiber is not None:
        fiber._yield_now()
