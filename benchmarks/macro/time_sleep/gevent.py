"""`monkey.patch_all()`."""

from gevent import monkey


def run(size, operations, watch):
    monkey.patch_all()
    from .program import run

    return run(size, operations, watch)
