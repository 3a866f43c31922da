"""`ThreadGroup` and `Event`."""

from contextlib import ExitStack

import vthreads
from vthreads import Event, ThreadGroup


def root(size, watch):
    def parks():
        nonlocal done
        event.wait()
        done += 1

    done, event = 0, Event()
    with ExitStack() as until_all_have_ended, ThreadGroup() as group:
        with watch("make"):
            for _ in range(size):
                group.spawn(parks)
            # A thread whose time slice has ended before its wait has yielded there: run each up to its wait.
            vthreads.sleep(0)
        watch.weigh()
        until_all_have_ended.enter_context(watch("end"))
        event.set()
    return done


def run(size, _, watch):
    return vthreads.run(root, size, watch, patch=False)
