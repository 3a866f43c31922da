"""`ThreadGroup.cancel()`."""

from contextlib import ExitStack

import vthreads
from vthreads import ThreadGroup, sleep


def root(size, watch):
    def parks():
        nonlocal done
        try:
            sleep(3600)
        finally:
            done += 1

    done = 0
    with ExitStack() as until_all_have_ended, ThreadGroup() as group:
        for _ in range(size):
            group.spawn(parks)
        until_all_have_ended.enter_context(watch())
        group.cancel()
    return done


def run(size, _, watch):
    return vthreads.run(root, size, watch, patch=False)
