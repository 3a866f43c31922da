"""The same without an event loop: the scheduler waits in its own poller."""

import vthreads


def run(size, operations, watch, program):
    return vthreads.run(program, size, operations, watch)
