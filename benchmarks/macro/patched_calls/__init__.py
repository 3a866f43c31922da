"""Calls of the standard library on a plain OS thread: what do they cost in addition when vthreads has replaced them?"""

import socket
import threading
import time

from ..in_process import in_process

SIZE = "threads"
SIZES = (1,)
OPERATIONS = 100_000
FIGURES = {
    "sleep": "µs per time.sleep(0)",
    "lock": "µs per acquire and release",
    "socket": "µs per send and recv of 1 byte",
}


def measure(peer, size, operations):
    """Return the cost of the calls after `peer.prepare`, which may replace them."""
    return in_process(Calls(peer), size, operations)


class Calls:
    """The measured calls, original or replaced."""

    def __init__(self, peer):
        self._prepare = peer.prepare
        self.__name__ = peer.__name__

    def run(self, size, operations, watch):
        """Make each call `operations` times on one thread."""
        self._prepare()
        with watch("sleep"):
            for _ in range(operations):
                time.sleep(0)
        lock = threading.Lock()
        with watch("lock"):
            for _ in range(operations):
                lock.acquire()
                lock.release()
        ours, theirs = socket.socketpair()
        received = 0
        with ours, theirs, watch("socket"):
            for _ in range(operations):
                ours.send(b"x")
                received += len(theirs.recv(1))
        return received
