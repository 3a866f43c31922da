"""`ThreadGroup` and `sleep`."""

import vthreads
from vthreads import ThreadGroup, sleep

from . import FIGURES, SECONDS


def root(size, watch):
    def sleeps():
        nonlocal done
        sleep(SECONDS)
        done += 1

    done = 0
    for figure in FIGURES:
        with watch(figure), ThreadGroup() as group:
            for _ in range(size):
                group.spawn(sleeps)
    return done // len(FIGURES)


def run(size, _, watch):
    return vthreads.run(root, size, watch, patch=False)
