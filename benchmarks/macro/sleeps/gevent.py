"""`gevent.pool.Group` and `gevent.sleep`."""

import gevent
from gevent.pool import Group

from . import FIGURES, SECONDS


def run(size, _, watch):
    def sleeps():
        nonlocal done
        gevent.sleep(SECONDS)
        done += 1

    done = 0
    for figure in FIGURES:
        group = Group()
        with watch(figure):
            for _ in range(size):
                group.spawn(sleeps)
            group.join()
    return done // len(FIGURES)
