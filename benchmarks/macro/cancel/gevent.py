"""`Group.kill()`."""

import gevent
from gevent.pool import Group


def run(size, _, watch):
    def parks():
        nonlocal done
        try:
            gevent.sleep(3600)
        finally:
            done += 1

    done = 0
    group = Group()
    for _ in range(size):
        group.spawn(parks)
    gevent.sleep(0)
    with watch():
        group.kill()
    return done
