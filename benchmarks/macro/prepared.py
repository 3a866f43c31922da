"""Programs of the standard library that are the same for all peers: a peer only replaces calls before they run.

Programs import what they use when they run. gevent replaces a module completely only if it is not imported before.
"""

from .in_process import in_process


class Prepared:
    """A peer that runs `program(size, operations, watch)` after its `prepare()`."""

    def __init__(self, peer, program):
        self._prepare = peer.prepare
        self._program = program
        self.__name__ = peer.__name__

    def run(self, size, operations, watch):
        """Run the program with the calls of the peer."""
        self._prepare()
        return self._program(size, operations, watch)


def measured_with(program):
    """Return the function `measure` of a workload whose peers all run `program`."""

    def measure(peer, size, operations):
        return in_process(Prepared(peer, program), size, operations)

    return measure


def run_threads(functions):
    """Run each function on a `threading.Thread`, and wait for all."""
    from threading import Thread

    threads = [Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
