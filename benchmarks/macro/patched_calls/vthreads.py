"""The standard library as `vthreads.patch()` leaves it."""

import vthreads


def prepare():
    vthreads.patch()
