"""`vthreads.patch(threads=True)`."""

import vthreads

from . import program


def run(size, operations, watch):
    vthreads.patch(threads=True)
    return program.run(size, operations, watch)
