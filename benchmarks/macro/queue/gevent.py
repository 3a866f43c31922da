"""`gevent.queue.Queue`."""

import gevent
from gevent.queue import Queue


def returns(there, back, times):
    for _ in range(times):
        back.put(there.get())


def asks(there, back, times):
    trips = 0
    for _ in range(times):
        there.put(1)
        trips += back.get()
    return trips


def run(size, operations, watch):
    times = operations // size
    with watch():
        askers, greenlets = [], []
        for _ in range(size):
            queues = Queue(1), Queue(1)
            greenlets.append(gevent.spawn(returns, *queues, times))
            askers.append(gevent.spawn(asks, *queues, times))
        gevent.joinall(greenlets + askers)
    return sum(asker.value for asker in askers)
