"""`queue.Queue`."""

from queue import Queue
from threading import Thread

AT_MOST = 1_000


def returns(there, back, times):
    for _ in range(times):
        back.put(there.get())


def asks(there, back, times, trips):
    for _ in range(times):
        there.put(1)
        trips.append(back.get())


def run(size, operations, watch):
    trips, threads = [], []
    for _ in range(size):
        queues = Queue(1), Queue(1)
        threads.append(Thread(target=returns, args=[*queues, operations // size]))
        threads.append(Thread(target=asks, args=[*queues, operations // size, trips]))
    with watch():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return len(trips)
