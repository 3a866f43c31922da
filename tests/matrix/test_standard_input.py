"""Reads of the standard input."""

import os
import sys

from tests.matrix.endings import Operations, nothing_happened, with_every_cause

OPERATIONS = Operations()


def from_standard_input(call):
    def read():
        reader, writer = os.pipe()
        original = sys.stdin
        sys.stdin = open(reader)
        try:
            yield call
            os.write(writer, b"kept\n")
            assert "kept" == input()
        finally:
            sys.stdin.close()
            sys.stdin = original
            os.close(writer)

    return read


OPERATIONS["input"] = from_standard_input(lambda: input())  # looked up when called: patched by then
OPERATIONS["sys.stdin.readline"] = from_standard_input(lambda: sys.stdin.readline())


@with_every_cause(OPERATIONS)
def test_nothing_happened(name, cause):
    nothing_happened(OPERATIONS[name], cause)
