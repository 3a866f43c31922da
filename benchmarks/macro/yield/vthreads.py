"""`sleep(0)`."""

import vthreads
from vthreads import ThreadGroup, sleep


def root(size, rounds, watch):
    def turns():
        count = 0
        while going_on:
            sleep(0)
            count += 1
        return count

    going_on = True
    with ThreadGroup() as group:
        futures = [group.spawn(turns) for _ in range(size - 1)]
        with watch():
            for _ in range(rounds):
                sleep(0)
        going_on = False
    return rounds + sum(min(future.result(), rounds) for future in futures)


def run(size, operations, watch):
    return vthreads.run(root, size, operations // size, watch, patch=False)
