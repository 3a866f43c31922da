"""`vthreads.aio.await_`, guest of uvloop."""

import vthreads
from vthreads.aio import await_

from .program import calls


def run(size, operations, watch, *more):
    return vthreads.run(calls, await_, operations, watch, *more, poller="uvloop")
