"""The program of all peers that have threads. Each thread counts its turns, since not all schedulers are fair."""

import time

from ..prepared import run_threads


def run(size, operations, watch):
    counts = []

    def turns():
        for _ in range(operations // size):
            time.sleep(0)
        counts.append(operations // size)

    with watch():
        run_threads([turns] * size)
    return sum(counts)
