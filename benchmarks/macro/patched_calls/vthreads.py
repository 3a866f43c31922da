"""The standard library after `vthreads.patch()`."""

import vthreads


def prepare():
    vthreads.patch()
