"""`ThreadGroup` and `sleep`."""

import vthreads
from vthreads import ThreadGroup, sleep

from . import SECONDS


def root(size, watch):
    def sleeps():
        nonlocal done
        sleep(SECONDS)
        done += 1

    done = 0
    with watch(), ThreadGroup() as group:
        for _ in range(size):
            group.spawn(sleeps)
    return done


def run(size, _, watch):
    return vthreads.run(root, size, watch, patch=False)
