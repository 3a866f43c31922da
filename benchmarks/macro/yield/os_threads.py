"""`time.sleep(0)`. Scheduling by the operating system is not fair, so each thread counts its own turns."""

import time
from threading import Barrier, Thread

AT_MOST = 1_000


def run(size, operations, watch):
    def turns(number):
        started.wait()
        for _ in range(rounds):
            time.sleep(0)
            counts[number] += 1

    rounds = operations // size
    started = Barrier(size + 1)
    counts = [0] * size
    threads = [Thread(target=turns, args=[number]) for number in range(size)]
    for thread in threads:
        thread.start()
    with watch():
        started.wait()
        for thread in threads:
            thread.join()
    return sum(counts)
