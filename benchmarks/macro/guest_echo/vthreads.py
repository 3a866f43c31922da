"""Guests of uvloop."""

import vthreads


def run(size, operations, watch, program):
    return vthreads.run(program, size, operations, watch, poller="uvloop")
