"""`gevent.pool.Group` and `gevent.sleep`."""

import gevent
from gevent.pool import Group

from . import SECONDS


def run(size, _, watch):
    def sleeps():
        nonlocal done
        gevent.sleep(SECONDS)
        done += 1

    done = 0
    group = Group()
    with watch():
        for _ in range(size):
            group.spawn(sleeps)
        group.join()
    return done
