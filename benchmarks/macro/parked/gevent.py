"""`gevent.pool.Group` and `gevent.event.Event`."""

import gevent
from gevent.event import Event
from gevent.pool import Group


def run(size, _, watch):
    def parks():
        nonlocal done
        event.wait()
        done += 1

    done, event, group = 0, Event(), Group()
    with watch("make"):
        for _ in range(size):
            group.spawn(parks)
        gevent.sleep(0)
    watch.weigh()
    with watch("end"):
        event.set()
        group.join()
    return done
