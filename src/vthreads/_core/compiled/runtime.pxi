# The public checkpoint, and the names of the readable core that its compiled parts use.


def set_core_names(
    *,
    thread_type,
    type_of_groups,
    type_of_background,
    group_open,
    future_type,
    future_running,
    future_finished,
    future_cancelled,
    futures_lock,
    statistics,
):
    global VirtualThread, group_type, background_type, OPEN
    global Future, FUTURE_RUNNING, FINISHED, CANCELLED, changing_futures, semaphore_statistics
    VirtualThread, group_type, background_type, OPEN = thread_type, type_of_groups, type_of_background, group_open
    Future, FUTURE_RUNNING, FINISHED, CANCELLED = future_type, future_running, future_finished, future_cancelled
    changing_futures, semaphore_statistics = futures_lock, statistics


@cython.binding(True)
def checkpoint():
    cdef Fiber fiber = _here()
    if fiber is not None:
        fiber._yield_now()
