"""`vthreads.Queue` between virtual threads on two carriers."""

import threading

import vthreads
from vthreads import Queue, ThreadGroup

from ..queue.vthreads import asks, returns


def root(pairs, times, watch):
    # Each member pins its carrier until all have started, so no two are on the same one.
    all_here = threading.Barrier(2 * pairs + 1)

    def member(function, *args):
        all_here.wait()
        return function(*args)

    futures = []
    with ThreadGroup(placement="spread") as group:
        for _ in range(pairs):
            queues = Queue(1), Queue(1)
            group.spawn(member, returns, *queues, times)
            futures.append(group.spawn(member, asks, *queues, times))
        all_here.wait()
        with watch():
            return sum(future.result() for future in futures)


def run(size, operations, watch):
    return vthreads.run(root, size, operations // size, watch, carriers=2 * size + 1, patch=False)
