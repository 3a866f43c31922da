"""`vthreads.aio.run`, from a virtual thread of the default poller."""

import vthreads
from vthreads import aio

from ..await_done.program import calls


def run(size, operations, watch):
    return vthreads.run(calls, aio.run, operations, watch)
