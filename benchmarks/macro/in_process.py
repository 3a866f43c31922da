"""A measurement of the process that does the work."""

from . import allocator, cores
from .watch import Watch


def in_process(peer, size, operations, *more):
    """Run `peer`, after a small run that covers one-time costs such as imports."""
    cores.pin(cores.MEASURED)
    allocator.settle()
    few = min(size, 2)
    peer.run(few, few, Watch(few), *more)
    watch = Watch(operations)
    done = peer.run(size, operations, watch, *more)
    if done != operations:
        raise AssertionError(f"{peer.__name__} did {done} of {operations} operations")
    return watch.figures
