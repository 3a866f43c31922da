"""A loop of uvloop in an OS thread."""

import uvloop

from . import loop_thread


def run(size, operations, watch):
    return loop_thread.run(uvloop.new_event_loop(), operations, watch)
