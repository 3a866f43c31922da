"""Virtual threads, by `vthreads.patch(threads=True)`."""

import vthreads


def prepare():
    vthreads.patch(threads=True)
