"""`ThreadGroup`."""

import vthreads
from vthreads import ThreadGroup


def root(size, watch):
    def nothing():
        nonlocal done
        done += 1

    done = 0
    with watch(), ThreadGroup() as group:
        for _ in range(size):
            group.spawn(nothing)
    return done


def run(size, _, watch):
    return vthreads.run(root, size, watch, patch=False)
