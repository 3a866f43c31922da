"""The program of all peers: they differ in the connections between the two threads of a pair."""

import os

from ..conversation import MESSAGE, converse


def pipes(stack):
    """Return two ends, each with the descriptors to read from and to write to."""
    (ours, to_us), (theirs, to_them) = os.pipe(), os.pipe()
    for descriptor in ours, to_us, theirs, to_them:
        stack.callback(os.close, descriptor)
    return (ours, to_them), (theirs, to_us)


def run(size, operations, watch, connect=pipes):
    """Exchange messages by `os.read` and `os.write`."""

    def ask(end):
        source, target = end
        os.write(target, MESSAGE)
        return os.read(source, 1_000)

    def answer(end):
        source, target = end
        os.write(target, os.read(source, 1_000))

    return converse(size, operations, watch, connect, ask, answer)
