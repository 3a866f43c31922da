"""A loop of asyncio in an OS thread."""

import asyncio

from . import loop_thread


def run(size, operations, watch):
    return loop_thread.run(asyncio.new_event_loop(), operations, watch)
