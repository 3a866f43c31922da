"""`vthreads.Queue`."""

import vthreads
from vthreads import Queue, ThreadGroup


def returns(there, back, times):
    for _ in range(times):
        back.put(there.get())


def asks(there, back, times):
    trips = 0
    for _ in range(times):
        there.put(1)
        trips += back.get()
    return trips


def root(pairs, times, watch):
    with watch(), ThreadGroup() as group:
        futures = []
        for _ in range(pairs):
            queues = Queue(1), Queue(1)
            group.spawn(returns, *queues, times)
            futures.append(group.spawn(asks, *queues, times))
    return sum(future.result() for future in futures)


def run(size, operations, watch):
    return vthreads.run(root, size, operations // size, watch, patch=False)
