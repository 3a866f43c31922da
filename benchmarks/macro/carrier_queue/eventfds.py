"""Two OS threads wake each other by an eventfd each, as carriers do."""

import os
from threading import Thread


def answers(there, back, times):
    for _ in range(times):
        os.eventfd_read(there)
        os.eventfd_write(back, 1)


def run(size, operations, watch):
    times = operations // size
    fds = [os.eventfd(0) for _ in range(2 * size)]
    pairs = list(zip(fds[::2], fds[1::2], strict=True))
    trips = []

    def asks(there, back):
        for _ in range(times):
            os.eventfd_write(there, 1)
            trips.append(os.eventfd_read(back))

    threads = [Thread(target=answers, args=[*pair, times]) for pair in pairs]
    threads += [Thread(target=asks, args=pair) for pair in pairs]
    with watch():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for fd in fds:
        os.close(fd)
    return sum(trips)
